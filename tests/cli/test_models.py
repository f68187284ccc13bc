"""`normprobe models`: every bundled model is described, and what it needs is what is here."""

import json

from normprobe.bundled_models import SOURCES, described, main
from normprobe.problems import bundled, open_source


def test_every_bundled_model_is_described_with_its_problems_and_weights(capsys):
    main([])
    shown = " ".join(capsys.readouterr().out.split())
    for name, model in bundled.MODELS.items():
        assert model.about, name
        assert model.about in shown
        assert SOURCES[model.problems] in shown
    main(["--json"])
    document = json.loads(capsys.readouterr().out)
    assert document == {"models": described()}
    assert [row["name"] for row in document["models"]] == list(bundled.MODELS)


def test_a_base_that_is_not_installed_is_named(monkeypatch, capsys):
    monkeypatch.setattr(bundled, "PACKAGE", "no_such_package")
    rows = {row["name"]: row for row in described()}
    assert (rows["tiny-thinker"]["base"], rows["tiny-thinker"]["installed"]) == (None, True)
    assert (rows["smol-thinker:base"]["base"], rows["smol-thinker:base"]["installed"]) == (
        "no-such-package",
        False,
    )
    main([])
    assert "pip install --no-deps no-such-package, which is not installed" in " ".join(
        capsys.readouterr().out.split()
    )


def test_the_sources_that_are_named_are_sources():
    assert {open_source(name).name for name in {model.problems for model in bundled.MODELS.values()}} <= set(
        SOURCES
    )
