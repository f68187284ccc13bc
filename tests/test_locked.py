"""locked.txt: the versions of constraints.txt with the hashes of their files, and all that the package needs."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def plain(name: str) -> str:
    """A package's name as an index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


LOCKED = (ROOT / "locked.txt").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
UNPINNED = {"setuptools"}  # `pip freeze`, which the constraints come from, leaves it out
PINNED = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").split())


def test_every_version_is_that_of_the_constraints_and_has_hashes():
    versions = {plain(name): version for name, version in PINNED.items()}
    assert len(LOCKED) > 100
    for line in LOCKED:
        name, version, platform, hashes = re.fullmatch(
            r"([\w.-]+)==([\w.+]+)( ; .*?)?((?: +--hash=sha256:[0-9a-f]{64})+)", line
        ).groups()
        # What is needed on other platforms alone was never installed here, so nothing pins it.
        free = bool(platform) or name in UNPINNED
        assert versions.get(plain(name), version if free else None) == version, line[:80]
        assert hashes


def test_everything_that_the_package_asks_for_is_locked():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = {plain(re.match(r"[\w.-]+", line)[0]) for line in project["dependencies"]}
    assert asked <= {plain(line.partition("==")[0]) for line in LOCKED}
