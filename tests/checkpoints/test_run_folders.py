# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""A run's folder is opened by what it holds, without gin and without the trainer; old runs are, too."""

import dataclasses
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run
from tiny_model import CONFIG, random_params

import gin
from class_jax import CLASS
from class_jax.checkpoints.configs import TextConfig
from class_jax.checkpoints.pretrained import load_pretrained, save_pretrained
from class_jax.checkpoints.runs import open_run, write_description
from class_jax.checkpoints.state import TrainCheckpoints
from class_jax.corpus.vocabulary import Vocabulary
from class_jax.errors import InputError

TEXTS = TextConfig(max_question_tokens=7, max_passage_tokens=60, max_answer_tokens=9, normalise_questions=False)
MODEL = dataclasses.replace(CONFIG, dtype="bfloat16", dropout_rate=0.0)


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "its own name.model"
    tiny_run.write_vocabulary(path)
    return Vocabulary.load(path)


def state(params, optimizer="optimizer"):
    moments = jax.tree.map(lambda x: jnp.asarray(x) * 2, params)
    return {"step": jnp.int32(3), "params": params, optimizer: {"mu": moments}}


def write_steps(folder, vocabulary, config=MODEL, seeds=(1,), optimizer="optimizer"):
    """Writes the checkpoints of a run: step i has the weights of the i-th seed."""
    host = {"model": config.fingerprint, "vocabulary": vocabulary.fingerprint}
    with TrainCheckpoints(folder / "checkpoints") as checkpoints:
        for step, seed in enumerate(seeds, start=1):
            checkpoints.save(step, state(random_params(config, seed), optimizer), host)


@pytest.fixture
def run(tmp_path, vocabulary):
    write_steps(tmp_path / "run", vocabulary, seeds=(1, 2))
    write_description(tmp_path / "run", MODEL, vocabulary, TEXTS)
    return tmp_path / "run"


def same_params(found, expected):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(found), expected)


def test_a_run_is_opened_with_its_newest_weights_lengths_and_vocabulary(run, vocabulary):
    model = CLASS.from_pretrained(run)
    assert model.config == MODEL and model.texts == TEXTS
    assert model.vocabulary.fingerprint == vocabulary.fingerprint
    same_params(model.params, random_params(MODEL, 2))
    assert len(model.tokenise(["one two three four five six seven eight"], "fi")[0]) == 7
    assert model.tokenise(["don’t"], "fi")[0].tolist() == model.tokenise(["don’t"], "en")[0].tolist()


def test_an_export_keeps_lengths_type_and_vocabulary(run, tmp_path):
    model = CLASS.from_pretrained(run)
    model.save_pretrained(tmp_path / "export")
    again = CLASS.from_pretrained(tmp_path / "export")
    assert (again.config, again.texts, again.fingerprint) == (model.config, model.texts, model.fingerprint)
    assert CLASS.from_pretrained(tmp_path / "export", dtype="float32").config.dtype == "float32"


def test_opening_a_run_leaves_gin_as_it_was_and_imports_no_trainer(run):
    with gin.unlock_config():
        gin.bind_parameter("gin.singleton.constructor", "the caller's")
    (run / "config.gin").write_text("gin.singleton.constructor = 'the run''s'\nimport nowhere\n")
    before = gin.config_str()
    CLASS.from_pretrained(run)
    assert gin.config_str() == before and gin.query_parameter("gin.singleton.constructor") == "the caller's"
    program = (
        f"import sys; from class_jax import CLASS; CLASS.from_pretrained({str(run)!r}); "
        "found = [n for n in sys.modules if n.startswith('class_jax.training') or n.split('.')[0] in ('gin', 'torch', "
        "'tensorflow', 'seqio')]; assert not found, found"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["config.json", "spiece.model"])
def test_a_changed_file_is_refused_by_name(run, tmp_path, name):
    """Also where the change is harmless: a line end more, pieces of another vocabulary."""
    CLASS.from_pretrained(run).save_pretrained(tmp_path / "export")
    tiny_run.write_vocabulary(tmp_path / "other.model", 370)
    for folder in (run, tmp_path / "export"):
        is_text = name.endswith(".json")
        changed = (folder / name).read_bytes() + b"\n" if is_text else (tmp_path / "other.model").read_bytes()
        (folder / name).write_bytes(changed)
        with pytest.raises(InputError) as error:
            CLASS.from_pretrained(folder)
        assert str(folder / name) in str(error.value)


def test_a_configuration_of_another_model_is_refused(run):
    document = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(document | {"retriever_head": 0}))
    (run / "digests.json").unlink()
    with pytest.raises(InputError) as error:
        open_run(run)
    assert str(run / "config.json") in str(error.value)


@pytest.mark.parametrize(
    ("key", "value"), [("max_question_tokens", 0), ("max_answer_tokens", True), ("normalise_questions", 1)]
)
def test_a_wrong_length_is_refused_by_its_key(key, value):
    with pytest.raises(InputError, match=key):
        TextConfig(**{key: value})


def test_a_description_is_renewed_where_it_differs_and_else_left(run, vocabulary):
    before = {path.name: path.stat().st_mtime_ns for path in run.iterdir() if path.is_file()}
    write_description(run, MODEL, vocabulary, TEXTS)
    assert before == {path.name: path.stat().st_mtime_ns for path in run.iterdir() if path.is_file()}
    write_description(run, MODEL, vocabulary, dataclasses.replace(TEXTS, max_question_tokens=8))
    assert load_pretrained(run).texts.max_question_tokens == 8
    tiny_run.write_vocabulary(run / "other.model", 370)
    other = Vocabulary.load(run / "other.model")
    write_description(run, MODEL, other, dataclasses.replace(TEXTS, max_question_tokens=8))
    assert (run / "spiece.model").read_bytes() == other.model


def test_a_damaged_step_gives_way_to_the_one_before(run, caplog):
    for file in (run / "checkpoints" / "2" / "arrays").rglob("*"):
        if file.is_file() and file.parent.name == "d":
            file.write_bytes(bytes(len(file.read_bytes())))
    same_params(CLASS.from_pretrained(run).params, random_params(MODEL, 1))
    assert "2" in caplog.text


def test_no_checkpoint_yet(tmp_path, vocabulary):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    write_description(tmp_path / "run", MODEL, vocabulary)
    with pytest.raises(InputError) as error:
        CLASS.from_pretrained(tmp_path / "run")
    assert str(tmp_path / "run" / "checkpoints") in str(error.value)


# Runs of version 0.2: `config.gin`, `checkpoints/` with a state called "optimiser", at the end `model/`.


@pytest.mark.parametrize(
    "line",
    ["VOCABULARY = {!r}\n", "VOCABULARY = \\\n    {!r}\n", "data.DataConfig.vocabulary = {!r}\n"],
    ids=["macro", "long macro", "parameter"],
)
def test_an_old_run_is_opened_by_shapes_and_by_the_text_of_its_settings(tmp_path, vocabulary, line):
    float32 = dataclasses.replace(MODEL, dtype="float32", dropout_rate=0.1)
    write_steps(tmp_path / "run", vocabulary, float32, optimizer="optimiser")
    settings = "import a.module.that.is.gone\n\n# Macros:\nSTORE = 'x'\n" + line.format(str(vocabulary.path))
    (tmp_path / "run" / "config.gin").write_text(settings)
    model = CLASS.from_pretrained(tmp_path / "run")
    assert model.config == float32 and model.texts == TextConfig()
    assert model.vocabulary.fingerprint == vocabulary.fingerprint
    same_params(model.params, random_params(float32, 1))


def test_an_old_run_with_an_export_is_opened_by_that(tmp_path, vocabulary):
    # Positions further apart than usual: no shape gives them.
    odd = dataclasses.replace(CONFIG, relative_attention_max_distance=64)
    write_steps(tmp_path / "run", vocabulary, odd, optimizer="optimiser")
    (tmp_path / "run" / "config.gin").write_text("VOCABULARY = 'moved/away.model'\n")
    save_pretrained(tmp_path / "run" / "model", random_params(odd, 5), odd, vocabulary)
    model = CLASS.from_pretrained(tmp_path / "run")
    assert model.config == odd and model.vocabulary.fingerprint == vocabulary.fingerprint
    same_params(model.params, random_params(odd, 1))


def test_an_old_run_without_a_vocabulary_asks_for_one(tmp_path, vocabulary):
    write_steps(tmp_path / "run", vocabulary, CONFIG, optimizer="optimiser")
    (tmp_path / "run" / "config.gin").write_text("import os\nVOCABULARY = os.getcwd()\n")
    with pytest.raises(InputError, match="--vocabulary"):
        CLASS.from_pretrained(tmp_path / "run")
    assert CLASS.from_pretrained(tmp_path / "run", vocabulary=vocabulary).config == CONFIG


def test_an_old_state_of_the_optimizer_is_resumed(tmp_path, vocabulary):
    write_steps(tmp_path / "run", vocabulary, optimizer="optimiser")
    expected = state(random_params(MODEL, 1))
    with TrainCheckpoints(tmp_path / "run" / "checkpoints") as checkpoints:
        restored, _, step = checkpoints.restore(jax.eval_shape(lambda: expected))
        same_params(restored, jax.device_get(expected))
        checkpoints.save(step + 1, restored, {"model": MODEL.fingerprint})
        same_params(checkpoints.restore(jax.eval_shape(lambda: expected))[0], jax.device_get(expected))
