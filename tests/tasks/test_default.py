"""What a few episodes show, and the verdict."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from typing import Any
from urllib.parse import quote

import pytest
from PIL import Image

from tests.envs.blocks import KINDS, Fake, name_of
from tests.envs.odd import CASES, LENGTH, ODD
from tests.tasks.examined import seen, verdict
from worldmodels.protocols import UserError
from worldmodels.runs import to_jsonable
from worldmodels.tasks.choices import choices
from worldmodels.tasks.default import (
    EPISODES,
    MOST_STEPS,
    PLAYED_OUT,
    REPLAYED,
    STEPS,
    WHOLE_EPISODES,
    measure,
)
from worldmodels.tasks.examination import Examination
from worldmodels.tasks.findings import findings


def test_an_examination_is_bounded_and_the_same_each_time() -> None:
    for kind in ("fine", "pendulum", "endless"):
        found, again = seen(kind), measure(name_of(kind))
        assert found.steps <= STEPS + (PLAYED_OUT if kind == "endless" else 0)
        assert sum(reach.episodes for reach in found.reached) <= EPISODES
        assert dataclasses.replace(again, steps_per_second=found.steps_per_second) == found
        assert choices(found, "quick") == choices(again, "quick")


def test_an_examination_survives_json() -> None:
    found = seen("pendulum")
    assert Examination.from_json(json.loads(json.dumps(to_jsonable(found)))) == found


def test_figures_of_a_pole() -> None:
    found = seen("fine")
    assert (found.frames.shape, found.frames.kind) == ((32, 48, 3), "colour")
    assert 60 < found.frames.mean < 90
    assert (found.frames.black, found.frames.white, found.frames.plain) == (0, 0, 0)
    assert 0 < found.frames.changed < 0.1
    assert found.rewards.constant
    assert found.rewards.commonest == 1
    ends = found.ends
    assert (ends.limit, ends.truncated) == (500, 0)
    assert ends.terminated + ends.cut == sum(reach.episodes for reach in found.reached)
    assert ends.terminated > 10
    assert found.repeatable
    assert not found.same_resets
    assert Image.open(io.BytesIO(found.png)).size == (4 * 64, 64)


def test_figures_of_a_pendulum() -> None:
    found = seen("pendulum")
    assert found.ends.terminated == 0
    assert found.ends.truncated > 0
    assert found.rewards.high < 0
    assert not found.rewards.constant


def test_seeds_are_those_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    reset = Fake.reset

    def note(env: Fake, **kwargs: Any) -> Any:
        seeds.append(kwargs["seed"])
        return reset(env, **kwargs)

    monkeypatch.setattr(Fake, "reset", note)
    measure(name_of("fine"))
    assert len(seeds) > 10
    assert all(0 <= seed < 400_000 for seed in seeds)


def test_limit_of_the_user_ends_episodes() -> None:
    found = measure(name_of("endless"), max_steps=20)
    assert (found.ends.limit, found.ends.longest, found.ends.cut) == (20, 20, 0)


@pytest.mark.parametrize(
    ("kind", "level", "says"),
    [
        ("fine", "ok", "it can be learnt"),
        ("pendulum", "ok", "it can be learnt"),
        ("goal", "ok", "it can be learnt"),
        ("black", "refused", "all frames are black.*render_mode"),
        ("white", "refused", "all frames are white"),
        ("stuck", "refused", "all frames are the same.*AddRenderObservation"),
        ("endless", "refused", "no episode ended within 10000 steps.*--max-steps"),
        ("clock", "ok", "it can be learnt"),
        ("two steps", "warning", "longer than 2 steps|nothing says which policy is better"),
        ("last", "warning", "all whole episodes have the same return: nothing says which"),
        ("never", "warning", "no reward came.*TransformReward"),
        ("unseeded", "warning", r"nothing can be reproduced.*np_random"),
    ],
)
def test_verdict(kind: str, level: str, says: str) -> None:
    found = verdict(kind)
    assert found[0] == level
    assert re.search(says, found[1])


@pytest.mark.parametrize("name", CASES)
def test_what_is_odd_is_taken_or_refused_in_one_line(name: str) -> None:
    case, env_id = CASES[name], f"{ODD}?case={quote(name)}"
    fault = case.at_make or case.at_step.replace("seed 7", r"seed \d+")
    if fault:
        with pytest.raises(UserError, match=fault) as caught:
            measure(env_id)
        assert "\n" not in str(caught.value)
        return
    found = measure(env_id)
    assert findings(found)[0].text.startswith("every step pays 1 and all episodes are equally long")
    assert (found.ends.longest, found.ends.limit, found.repeatable) == (LENGTH, None, True)


def test_ends_that_come_late_are_seen() -> None:
    """Every step pays the same, so that an end is all that a policy can be told by."""
    late = seen("late")
    assert late.ends.terminated >= 5
    assert late.survival and verdict("late")[0] == "ok"
    assert "nothing says" not in " ".join(one.text for one in findings(late))


def test_whole_episodes_are_played_until_it_is_known_whether_they_end() -> None:
    slow, drawn_out, clock = seen("slow"), seen("drawn out"), seen("clock")
    assert slow.ends.terminated + slow.ends.truncated >= WHOLE_EPISODES
    assert drawn_out.ends.truncated >= WHOLE_EPISODES
    assert drawn_out.steps <= MOST_STEPS + REPLAYED
    assert "all episodes are equally long" in verdict("drawn out")[1]
    assert clock.ends.natural == 2048 and clock.ends.terminated >= 1


def test_an_endless_one_is_not_watched_for_longer() -> None:
    assert seen("endless").ends.cut == 7
    texts = " ".join(one.text for one in findings(seen("endless")))
    assert re.search(r"every step pays 1 and no episode ended in \d+ steps: nothing says", texts)


def test_other_seeds_first_frames_are_compared() -> None:
    """Each behaviour had one episode here, all of one seed."""
    assert not seen("endless").same_resets
    assert seen("same").same_resets


def test_notes() -> None:
    texts = {kind: " ".join(f.text for f in findings(seen(kind))) for kind in KINDS}
    assert "no reward is above 0" in texts["negative"]
    assert "no reward is above 0" in texts["pendulum"]
    assert "how long the episode lasts" in texts["take cover"]
    assert "how long the episode lasts" not in texts["bonus"] + texts["one step"]
    assert "begin with the same frame" in texts["same"]
    assert "the return is how long the episode lasts" in texts["fine"]
    assert "longer than 2 steps" in texts["two steps"]
    assert "pay 4 but some last ones: the return is how long the episode" in texts["take cover"]
    assert "rare" not in texts["take cover"]


def test_an_episode_is_played_to_its_end_where_none_has_ended() -> None:
    assert seen("clock").ends.natural == 2048
    assert (seen("clock").ends.limit, seen("clock").ends.longest) == (None, 2048)
    assert seen("endless").ends.natural is None
    for kind in ("fine", "pendulum", "frail", "long", "drawn out"):
        assert seen(kind).ends.natural is None, kind
