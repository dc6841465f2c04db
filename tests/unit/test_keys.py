"""Keys of the PRM's API: what the file may say, when it is read again, and what a key may still ask for."""

import os
import tomllib
from pathlib import Path

import pytest

from prime.adapters.telemetry import Meters
from prime.errors import Forbidden, LimitReached, SettingsError, Unauthenticated
from primectl.new_key import run_new_key
from services.prm.allowance import DayCount, RequestBucket
from services.prm.callers import Caller, calling, current_caller
from services.prm.key_file import Scope, digest_of, read_keys
from services.prm.keys import Keys
from services.prm.settings import ApiSettings

ROOT = Path(__file__).parents[2]
MIDNIGHT_S = 20_000 * 86_400.0
TOKEN = "shared"


class Clock:
    """Stands where it is set."""

    def __init__(self, now_s: float) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


def _table(name: str, key: str, *lines: str, scopes: str = '["score"]') -> str:
    return "\n".join((f"[{name}]", f'sha256 = "{digest_of(key)}"', f"scopes = {scopes}", *lines, ""))


def _file(folder: Path, *tables: str) -> Path:
    """Replaced as a whole, as an editor does it."""
    partial = folder / "partial"
    partial.write_text("\n".join(tables))
    return partial.rename(folder / "keys.toml")


def _keys(file: Path | None, clock: Clock | None = None, meters: Meters | None = None) -> Keys:
    return Keys(TOKEN, meters=meters or Meters(), file=file, clock=clock or Clock(MIDNIGHT_S + 1000))


# ---------------------------------------------------------------- requests and tokens


def test_a_bucket_gives_a_minutes_requests_at_once_and_then_one_by_one() -> None:
    bucket = RequestBucket()
    assert [bucket.wait_s(30, 100.0) for _ in range(31)] == [0.0] * 30 + [2.0]
    assert bucket.wait_s(30, 101.5) == pytest.approx(0.5)
    assert bucket.wait_s(30, 102.0) == 0.0
    assert bucket.wait_s(30, 102.0) == pytest.approx(2.0)
    # However long it is left alone, it holds a minute's requests.
    assert [bucket.wait_s(30, 1e6) for _ in range(31)] == [0.0] * 30 + [2.0]


def test_whoever_comes_when_told_is_let_in() -> None:
    bucket, now_s, came = RequestBucket(), 0.0, 0
    while now_s < 600:
        wait_s = bucket.wait_s(7, now_s)
        came += wait_s == 0.0
        now_s += wait_s
    # Seven at the start, and seven a minute.
    assert came == 77


def test_a_clock_that_is_set_back_opens_and_closes_nothing() -> None:
    bucket = RequestBucket()
    assert [bucket.wait_s(2, 1000.0) for _ in range(3)] == [0.0, 0.0, 30.0]
    assert bucket.wait_s(2, 0.0) == 30.0
    assert bucket.wait_s(2, 30.0) == 0.0


def test_tokens_are_renewed_at_midnight_of_utc() -> None:
    count = DayCount()
    count.add(90, MIDNIGHT_S - 100)
    assert count.wait_s(100, MIDNIGHT_S - 100) == 0.0
    count.add(20, MIDNIGHT_S - 50)
    assert count.wait_s(100, MIDNIGHT_S - 50) == 50.0
    assert count.wait_s(100, MIDNIGHT_S) == 0.0
    count.add(100, MIDNIGHT_S)
    assert count.wait_s(100, MIDNIGHT_S + 1) == 86_399.0


# ---------------------------------------------------------------- the file


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (_table("alice", "a", "limit = 3"), "key 'alice': unknown field 'limit'; take it out or correct it: known are"),
        (_table("alice", "a", scopes='["score", "teach"]'), "key 'alice': scopes.1 = 'teach'"),
        (_table("alice", "a", scopes="[]"), "key 'alice': scopes"),
        (_table("alice", "a", "share = 0"), "key 'alice': share = 0"),
        (_table("alice", "a", "share = nan"), "key 'alice': share = nan"),
        (_table("alice", "a", "requests_per_minute = -1"), "key 'alice': requests_per_minute = -1"),
        (_table("alice", "a", "tokens_per_day = 1.5"), "key 'alice': tokens_per_day = 1.5"),
        ('[alice]\nscopes = ["score"]', "key 'alice': the field 'sha256' is missing"),
        (_table("alice", "a") + _table("bob", "a"), "'alice' and 'bob' have the same sha256"),
        (_table("services", "a"), "the name 'services' is taken"),
        (_table('"a b"', "a"), "key 'a b': a name has 1 to 64 letters"),
        ("[alice", "is no TOML"),
    ],
)
def test_what_is_wrong_with_the_file_is_told_by_file_and_key(tmp_path: Path, text: str, told: str) -> None:
    file = _file(tmp_path, text)
    with pytest.raises(SettingsError) as caught:
        read_keys(file)
    assert str(caught.value).startswith(f"key file {file}")
    assert told in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ['alice = "a-secret"', '[alice]\nsha256 = "a-secret"\nscopes = ["score"]', '[alice]\nkey = "a-secret"'],
    ids=["as a value", "as its own digest", "as a field"],
)
def test_a_key_that_was_written_into_the_file_is_not_repeated(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match="alice") as caught:
        read_keys(_file(tmp_path, text))
    assert "a-secret" not in str(caught.value)


def test_a_missing_file_is_told_with_its_setting(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere.toml \(setting `prm.api.keys`\) cannot be read: No such file"):
        _keys(tmp_path / "nowhere.toml")


def test_the_example_file_is_as_the_service_wants_it() -> None:
    keys = read_keys(ROOT / "examples" / "keys.toml")
    assert {name: set(key.scopes) for name, key in keys.items()} == {
        "batch": {Scope.SCORE},
        "assistant": {Scope.SCORE, Scope.CHAT},
        "second-trainer": {Scope.SCORE, Scope.LEARN},
    }
    assert (keys["assistant"].share, keys["assistant"].priority) == (2.0, True)


def test_a_new_key_opens_what_its_table_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_new_key("alice", scopes="score, chat") == 0
    printed = capsys.readouterr()
    key = printed.err.strip().rpartition(" ")[2]
    assert len(key) >= 43
    assert key not in printed.out
    assert list(tomllib.loads(printed.out)) == ["alice"]
    keys = _keys(_file(tmp_path, printed.out))
    assert keys.admit(key, Scope.CHAT).name == "alice"
    with pytest.raises(SettingsError, match=r"primectl new-key, key 'bob': scopes\.0 = 'teach'"):
        run_new_key("bob", scopes="teach")


# ---------------------------------------------------------------- who is let in


def test_a_key_opens_its_scopes_and_the_shared_token_all(tmp_path: Path) -> None:
    keys = _keys(_file(tmp_path, _table("alice", "a", "share = 2.5"), _table("bob", "b", scopes='["chat"]')))
    assert keys.admit("a", Scope.SCORE) == Caller(name="alice", share=2.5)
    assert keys.admit("b", Scope.CHAT) == keys.admit("b", None) == Caller(name="bob")
    for scope in Scope:
        assert keys.admit(TOKEN, scope, urgent=True) == Caller(name="services", is_urgent=True)
    with pytest.raises(Forbidden, match=r"the key 'alice' lacks the scope 'learn' \(it has: score\)"):
        keys.admit("a", Scope.LEARN)
    with pytest.raises(Forbidden, match="the key 'alice' may not send `X-Priority: high`"):
        keys.admit("a", Scope.SCORE, urgent=True)
    for wrong in ("", "A", "ab", digest_of("a")):
        with pytest.raises(Unauthenticated, match="missing or wrong"):
            keys.admit(wrong, None)


def test_no_key_is_no_key_although_the_file_has_its_digest(tmp_path: Path) -> None:
    with pytest.raises(Unauthenticated):
        _keys(_file(tmp_path, _table("nobody", ""))).admit("", None)


def test_the_shared_token_is_not_to_be_had_with_fewer_rights(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="key 'alice': this is the token that the services share"):
        _keys(_file(tmp_path, _table("alice", TOKEN)))


def test_limits_are_each_keys_own(tmp_path: Path) -> None:
    clock, meters = Clock(MIDNIGHT_S + 80_000), Meters()
    limits = ("requests_per_minute = 2", "tokens_per_day = 10")
    tables = [_table(name, name, *limits, scopes='["score", "learn"]') for name in ("alice", "bob")]
    keys = _keys(_file(tmp_path, *tables), clock, meters)
    for _ in range(2):
        keys.admit("alice", Scope.SCORE)
    with pytest.raises(LimitReached, match=r"used its 2 requests per minute .* in 30.0 s") as caught:
        keys.admit("alice", Scope.SCORE)
    assert caught.value.retry_after_s == pytest.approx(30)
    with calling(keys.admit("bob", Scope.SCORE)):
        keys.charge(10)
    with pytest.raises(LimitReached, match=r"used its 10 tokens of this day .* in 6400 s") as caught:
        keys.admit("bob", Scope.SCORE)
    assert caught.value.retry_after_s == 6400
    keys.admit("bob", Scope.LEARN)  # scores nothing
    clock.now_s = MIDNIGHT_S + 86_400
    keys.admit("bob", Scope.SCORE)
    keys.admit("alice", Scope.SCORE)
    value = meters.registry.get_sample_value
    assert value("prime_prm_key_requests_total", {"key": "alice"}) == 3
    assert value("prime_prm_key_requests_total", {"key": "bob"}) == 3
    assert value("prime_prm_key_tokens_total", {"key": "bob"}) == 10
    assert value("prime_prm_key_refused_total", {"key": "alice", "reason": "requests"}) == 1
    assert value("prime_prm_key_refused_total", {"key": "bob", "reason": "tokens"}) == 1


def test_who_asks_is_known_inside_the_block_alone() -> None:
    assert current_caller().name == "anyone"
    with calling(Caller(name="alice")):
        assert current_caller().name == "alice"
    assert current_caller().name == "anyone"


# ---------------------------------------------------------------- a file that changes


def test_a_changed_file_counts_a_second_later_and_what_was_used_stays_used(tmp_path: Path) -> None:
    clock = Clock(MIDNIGHT_S + 1000)
    keys = _keys(_file(tmp_path, _table("alice", "old", "tokens_per_day = 10"), _table("bob", "b")), clock)
    with calling(keys.admit("old", Scope.SCORE)):
        keys.charge(7)
    _file(tmp_path, _table("alice", "new", "tokens_per_day = 5"), _table("carol", "c"))
    clock.now_s += 0.5
    keys.admit("old", None)
    clock.now_s += 0.5
    assert keys.admit("c", None).name == "carol"
    for gone in ("old", "b"):
        with pytest.raises(Unauthenticated):
            keys.admit(gone, None)
    # Another key and another limit under the same name: its tokens of today were spent all the same.
    with pytest.raises(LimitReached, match="its 5 tokens"):
        keys.admit("new", Scope.SCORE)


def test_a_broken_file_leaves_the_keys_as_they_are_and_is_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clock, meters = Clock(MIDNIGHT_S + 1000), Meters()
    file = _file(tmp_path, _table("alice", "a"))
    keys = _keys(file, clock, meters)
    said = 0
    for breaking in (lambda: _file(tmp_path, _table("alice", "a", "limit = 1")), lambda: file.unlink()):
        breaking()
        for _ in range(3):
            clock.now_s += 1
            assert keys.admit("a", Scope.SCORE).name == "alice"
            assert meters.registry.get_sample_value("prime_prm_key_file_stale") == 1
        said += "".join(capsys.readouterr()).count("the key file cannot be used")
    assert said == 2
    _file(tmp_path, _table("alice", "b"))
    clock.now_s += 1
    assert keys.admit("b", Scope.SCORE).name == "alice"
    assert meters.registry.get_sample_value("prime_prm_key_file_stale") == 0


def test_a_file_that_is_changed_in_its_place_is_seen_by_its_time(tmp_path: Path) -> None:
    clock = Clock(MIDNIGHT_S + 1000)
    file = _file(tmp_path, _table("alice", "a"))
    keys = _keys(file, clock)
    before = file.stat()
    file.write_text(_table("alice", "b"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert (file.stat().st_ino, file.stat().st_size) == (before.st_ino, before.st_size)
    clock.now_s += 1
    assert keys.admit("b", None).name == "alice"


def test_keys_without_a_check_are_refused(tmp_path: Path) -> None:
    for wrong in ({"keys": tmp_path / "keys.toml"}, {"open_metrics": False}):
        with pytest.raises(ValueError, match="need require_key = true"):
            ApiSettings.model_validate({"require_key": False, **wrong})
