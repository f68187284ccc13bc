"""lm-evaluation-harness: our tasks under its own model, our model under its own evaluation, no network for either."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.task import Task
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from normprobe.engines.base import UntriggeredWarning
from normprobe.engines.hf import HfEngine
from normprobe.errors import NormprobeError
from normprobe.experiments.lm_eval import NormprobeLM
from normprobe.experiments.lm_eval_tasks import DIRECTORY
from normprobe.experiments.lm_eval_tasks.testbed import CLOSE, N_DOCUMENTS, SEED, documents, judge
from normprobe.layer_profile import LayerProfile
from normprobe.models.model import OpenModel
from normprobe.models.open import open_model
from normprobe.policies.spec import build
from normprobe.problems import bundled
from normprobe.problems.testbed.problems import Problem, make_problems
from normprobe.training.tiny_thinker.accuracy import MAX_NEW_TOKENS, accuracy

ROOT = Path(__file__).parents[2]
TASKS = {
    "normprobe_arithmetic": ("arithmetic", None),
    "normprobe_boolean": ("boolean", None),
    "normprobe_pointer": ("pointer", None),
    "normprobe_recall": ("recall", None),
    "normprobe_arithmetic_crowded": ("arithmetic", 7),
    "normprobe_boolean_crowded": ("boolean", 7),
}
ACTING = {  # on many tokens, and hard enough to change what is said
    "alrr": {"policy": "alrr", "tau": {8: 5.0, 9: 5.0}, "blow_up": 100.0, "growth": -1.0},
    "erss": {
        "policy": "erss",
        "tau": {8: 5.0, 9: 5.0},
        "probability": 0.5,
        "cooldown": 0,
        "min_cosine": -1.0,
        "beta": 0.9,
    },
}


@pytest.fixture(scope="module")
def opened() -> OpenModel:
    return open_model("tiny-thinker")


@pytest.fixture(scope="module")
def tasks() -> dict[str, Task]:
    manager = TaskManager(include_path=str(DIRECTORY), include_defaults=False)
    assert set(manager.all_subtasks) == set(TASKS)
    loaded = manager.load(["normprobe_testbed", "normprobe_crowded"])
    assert set(loaded["groups"]) == set(manager.all_groups)
    return loaded["tasks"]


def lm(**arguments: object) -> NormprobeLM:
    return NormprobeLM("tiny-thinker", **arguments)  # type: ignore[arg-type]


def requests_of(model: NormprobeLM, questions: list[str], **settings: object) -> list[Instance]:
    how = {"until": [], "do_sample": False, "max_gen_toks": MAX_NEW_TOKENS} | settings
    prompts = [model.apply_chat_template([{"role": "user", "content": question}]) for question in questions]
    return [Instance("generate_until", {}, (prompt, dict(how)), i) for i, prompt in enumerate(prompts)]


def questions(n: int) -> list[str]:
    return [problem.question for problem in make_problems(n, 3, difficulties=(1, 2, 3))]


def problems_of(name: str, n: int) -> list[Problem]:
    """The first documents of a task."""
    domain, distractors = TASKS[name]
    return make_problems(n, SEED, domains=[domain], distractors=distractors)


@pytest.mark.parametrize("name", TASKS)
def test_every_task_has_the_problems_of_its_domain(tasks, name):
    task, problems = tasks[name], problems_of(name, 40)
    assert len(task.eval_docs) == N_DOCUMENTS
    documents = task.eval_docs.select(range(len(problems)))
    assert [task.doc_to_text(document) for document in documents] == [p.question for p in problems]
    assert [task.doc_to_target(document) for document in documents] == [
        f"answer : {p.answer}" for p in problems
    ]
    assert task.config.generation_kwargs["max_gen_toks"] == MAX_NEW_TOKENS


def test_no_question_comes_twice_and_no_setting_of_a_model_changes_one():
    plain = documents("recall")["test"].to_list()
    assert len({document["question"] for document in plain}) == N_DOCUMENTS
    assert documents("recall", seed=1, pretrained="x", n=3)["test"].to_list() == plain


@pytest.mark.parametrize(
    "response, score",
    [
        ("answer : 7", 1.0),
        ("plan : b ; so b= 7 ; </think> answer : 7", 1.0),
        ("\n answer : 7 \n", 1.0),
        ("answer : 8", 0.0),
        ("answer : 7 answer : 7", 0.0),
        ("answer : 7 </think> answer : 8", 0.0),
        ("plan : b ; so b= 7", 0.0),
        ("7", 0.0),
        ("", 0.0),
    ],
)
def test_the_judge(response, score):
    assert judge({"answer": "7"}, [response]) == {"exact_match": score}


@pytest.mark.parametrize("mode", ["think", "no_think"])
@pytest.mark.parametrize("ours", [True, False], ids=["normprobe", "hf"])
def test_both_models_score_each_problem_as_the_testbed_does(tasks, opened, mode, ours):
    n, names = 3 if mode == "think" else 8, ["normprobe_pointer", "normprobe_boolean_crowded"]
    model = (
        lm(mode=mode, batch_size=16)
        if ours
        else HFLM(
            str(bundled.find("tiny-thinker").folder),
            device="cpu",
            dtype="float32",
            batch_size=16,
            enable_thinking=mode == "think",
            think_end_token="</think>",
        )
    )
    results = simple_evaluate(
        model,
        tasks=[tasks[name] for name in names],
        task_manager=TaskManager(include_defaults=False),
        apply_chat_template=True,
        limit=n,
        bootstrap_iters=0,
    )
    assert results is not None
    for name in names:
        samples = sorted(results["samples"][name], key=lambda sample: sample["doc_id"])
        given = np.array([sample["exact_match"] for sample in samples], dtype=bool)
        assert given.tolist() == accuracy(opened.model, opened.tokenizer, problems_of(name, n), mode).tolist()
        assert results["results"][name]["exact_match,none"] == given.mean()


@pytest.mark.parametrize("name", ACTING)
def test_a_policy_gives_what_the_engine_gives_whatever_the_batches(opened, name, caplog):
    asked = questions(5)
    prompts = [opened.chat.prompt_ids(question, "think") for question in asked]
    engine = HfEngine(opened)
    written = engine.generate(
        prompts,
        MAX_NEW_TOKENS,
        names=[str(prompt) for prompt in prompts],
        policy=build(ACTING[name], None),
        record=True,
    )
    assert written.events is not None
    # As lm-eval has it, the last </think> closes a thought that closes twice.
    texts = [opened.chat.answer_text(p + ids, len(p)) for p, ids in zip(prompts, written.tokens, strict=True)]
    expected = [text.split(CLOSE)[-1].lstrip() for text in texts]
    assert written.tokens != engine.generate(prompts, MAX_NEW_TOKENS).tokens, (
        "expected a policy strong enough to be seen"
    )
    for batch_size in (1, 4):
        model = lm(policy=ACTING[name], batch_size=batch_size)
        with caplog.at_level(logging.INFO, logger="lm_eval"):
            assert model.generate_until(requests_of(model, asked), disable_tqdm=True) == expected
        passes = int(written.events.passes.sum())
        assert (
            f"acted on {len(written.events.request)} states, with {passes} extra passes"
            in caplog.messages[-1]
        )


def test_a_policy_that_never_acts_leaves_every_answer_and_says_so_once():
    asked = questions(4)
    never = lm(policy={"policy": "alrr", "tau": {"9": 1e9}}, batch_size=2)
    with pytest.warns(UntriggeredWarning, match="nothing in 4 responses") as caught:
        answers = never.generate_until(requests_of(never, asked), disable_tqdm=True)
    assert len(caught) == 1
    plain = lm(batch_size=2)
    assert answers == plain.generate_until(requests_of(plain, asked), disable_tqdm=True)


def test_a_thought_that_never_closes_is_no_answer(caplog):
    model = lm(batch_size=2)
    cut = requests_of(model, questions(2), max_gen_toks=5)
    assert model.generate_until(cut, disable_tqdm=True) == ["", ""]
    assert "2 of 2 thoughts never closed" in caplog.text


def test_a_string_ends_the_answer_and_never_the_thought(opened):
    asked = questions(3)
    plain, cut = lm(batch_size=2), lm(batch_size=2)
    whole = plain.generate_until(requests_of(plain, asked), disable_tqdm=True)
    assert all(" : " in answer for answer in whole)  # thoughts hold one, too
    assert cut.generate_until(requests_of(cut, asked, until=[" :"]), disable_tqdm=True) == ["answer"] * 3
    short, long = (sum(len(one.tokens) for one in model.written) for model in (cut, plain))
    assert 0 < short < long  # generation ended there


def test_sampled_answers_hang_on_prompt_and_repeat_alone():
    asked = questions(2)
    sampled = {"do_sample": True, "temperature": 3.0, "max_gen_toks": 40}
    one, many = lm(mode="no_think", batch_size=1), lm(mode="no_think", batch_size=4)
    first = one.generate_until(requests_of(one, asked * 2, **sampled), disable_tqdm=True)
    assert first == many.generate_until(requests_of(many, asked * 2, **sampled), disable_tqdm=True)
    assert len(set(first)) == 4  # repeats are samples of their own
    with pytest.raises(NormprobeError, match="got top_p; leave it out"):
        one.generate_until(requests_of(one, asked, **sampled, top_p=0.5))


@pytest.mark.parametrize("mode", ["think", "no_think"])
def test_the_prompts_are_those_of_the_chat_modes(mode, opened):
    model = lm(mode=mode)
    asked = {"role": "user", "content": "? a"}
    text = model.apply_chat_template([asked])
    assert model.tok_encode(text) == opened.chat.prompt_ids("? a", mode)
    earlier = [{"role": "user", "content": "? b"}, {"role": "assistant", "content": "answer : 1"}]
    assert model.apply_chat_template([*earlier, asked]).endswith(text)


def test_the_thinking_format_can_be_given(opened):
    model = lm(mode="no_think", system_prompt="math", think_start="<think>", think_end="</think>")
    text = model.apply_chat_template([{"role": "user", "content": "? a"}])
    assert text.startswith("<|im_start|> system math")
    assert text.endswith("<think> </think>")
    with pytest.raises(NormprobeError, match="tells the modes apart"):
        lm(chat_template_kwargs={"enable_thinking": True})


def test_the_profile_gives_the_thresholds(opened, tmp_path):
    profile = LayerProfile(
        1,
        opened.identity.to_dict(),
        [0.25, 0.75],
        {"think": [[9.0, 10.0]] * 12},
        {},
        [12.0] * 12,
        None,
        [9],
        8,
    )
    profile.save(tmp_path / "profile.json")
    spec = {"policy": "alrr", "tau": "profile"}
    assert lm(policy=spec, profile=str(tmp_path / "profile.json")).policy == build(spec, profile)
    stranger = LayerProfile(**(vars(profile) | {"model": profile.model | {"weights": "other"}}))
    stranger.save(tmp_path / "stranger.json")
    with pytest.raises(NormprobeError, match="expected a layer profile of tiny-thinker"):
        lm(policy=spec, profile=str(tmp_path / "stranger.json"))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"polcy": "alrr"}, "got polcy; correct"),
        ({"mode": "filler"}, "mode of think, no_think, got 'filler'"),
        ({"policy": "nothing"}, "policy among alrr"),
        ({"policy": "alrr"}, "expected a layer profile"),
        ({"profile": "profile.json"}, "expected a policy with the profile"),
        ({"policy": "alrr", "profile": "nowhere.json"}, "nowhere.json"),
        ({"dtype": "auto"}, "expected model.dtype as"),
        ({"engine": "trt"}, "expected model.engine as"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(arguments, message):
    with pytest.raises(NormprobeError, match=message) as refused:
        lm(**arguments)
    assert "\n" not in str(refused.value)


def test_plain_prompts_and_scored_texts_are_refused():
    model = lm()
    bare = Instance("generate_until", {}, ("arithmetic : ? a", {"until": []}), 0)
    with pytest.raises(NormprobeError, match="add --apply_chat_template"):
        model.generate_until([bare])
    scored = Instance("loglikelihood", {}, ("a", "b"), 0, metadata=("arc_easy", 0, 1))
    for refuse in (model.loglikelihood, model.loglikelihood_rolling):
        with pytest.raises(NormprobeError, match="tasks that generate, got arc_easy"):
            refuse([scored])


def test_the_package_loads_lm_eval_only_when_asked():
    program = "import sys, normprobe.cli, normprobe.experiments.lm_eval_tasks.testbed; print('lm_eval' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "False"


def test_the_command_line_knows_model_and_tasks(tmp_path):
    model = {"pretrained": "tiny-thinker", "policy": {"policy": "alrr", "tau": {"9": 20}}}
    command = (
        "--model normprobe --tasks normprobe_recall --apply_chat_template --limit 2 --batch_size 2".split()
    )
    results = ["--output_path", str(tmp_path / "r.json")]
    program = [sys.executable, "-m", "normprobe.experiments.lm_eval"]
    done = subprocess.run(
        [*program, *command, *results, "--model_args", json.dumps(model)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    written = json.loads(next(tmp_path.glob("r_*.json")).read_text())
    assert written["results"]["normprobe_recall"]["exact_match,none"] == 1.0
    assert written["config"]["model_identity"]["name"] == "tiny-thinker"
