"""What the vault seals opens only with its key, in its place, and unchanged."""

from __future__ import annotations

import stat
from base64 import b64encode
from pathlib import Path
from threading import Thread

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowserver.errors import DamagedSecret, NoEncryptionKey, Unavailable, UnknownKey
from flowserver.settings import Settings, load, secrets
from flowserver.vault import KEY_FILE, Vault, key_id, open_vault, read_keys

OLD, NEW = bytes(32), bytes(range(32))
VAULT = Vault({"new": NEW, "old": OLD})


@given(data=st.binary(max_size=500), context=st.text(st.characters(codec="utf-8"), max_size=50))
def test_what_is_sealed_opens_again(data: bytes, context: str) -> None:
    sealed = VAULT.seal(data, context)

    assert VAULT.open(sealed, context) == data
    assert sealed.startswith("v1.new.")
    assert data not in sealed.encode() or len(data) < 4


def test_the_first_key_seals_and_older_ones_still_open() -> None:
    sealed = Vault({"old": OLD}).seal(b"secret", "row 1")

    assert VAULT.open(sealed, "row 1") == b"secret"
    assert key_id(VAULT.seal(b"", "row 1")) == "new"


def test_lib_03_another_place_opens_nothing() -> None:
    with pytest.raises(DamagedSecret):
        VAULT.open(VAULT.seal(b"secret", "row 1"), "row 2")


def test_lib_04_no_changed_letter_opens_to_garbage() -> None:
    sealed = VAULT.seal(b"secret", "row 1")

    for place in range(len(sealed)):
        for letter in ("A", "B", ".", "é", "="):
            changed = sealed[:place] + letter + sealed[place + 1 :]
            if changed != sealed:
                with pytest.raises((DamagedSecret, UnknownKey)):
                    VAULT.open(changed, "row 1")


@pytest.mark.parametrize(
    "junk", ["", "v1", "v1.new..", "v1.new.AAAA.AAAA", "v2.new.a.b", "a.b.c.d.e", "v1.new.é.é"]
)
def test_what_no_vault_has_made_is_damaged(junk: str) -> None:
    with pytest.raises(DamagedSecret):
        VAULT.open(junk, "")


def test_a_missing_key_is_named() -> None:
    with pytest.raises(UnknownKey, match="'new'"):
        Vault({"old": OLD}).open(VAULT.seal(b"", ""), "")


def test_without_a_key_nothing_is_sealed() -> None:
    with pytest.raises(NoEncryptionKey, match="FLOWSERVER_ENCRYPTION_KEYS"):
        Vault({}).seal(b"", "")


def test_keys_come_with_an_id_or_get_one() -> None:
    text = b64encode(NEW).decode()
    url_safe = text.replace("+", "-").replace("/", "_")

    assert read_keys([f"k1:{text}"]) == {"k1": NEW}
    (id,) = read_keys([text])
    assert read_keys([url_safe]) == {id: NEW}
    assert len(id) == 8


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        (["short"], "key 1 is not 32 bytes"),
        (["a.b:" + b64encode(NEW).decode()], "key 1 has an id"),
        (["a:" + b64encode(NEW).decode(), "a:" + b64encode(OLD).decode()], "key 2 has the id of another"),
        ([""], "key 1 is not 32 bytes"),
        (["ключ"], "key 1 is not 32 bytes"),
    ],
)
def test_what_is_no_key_is_refused_without_being_shown(given: list[str], wrong: str) -> None:
    with pytest.raises(Unavailable, match=wrong) as refused:
        read_keys(given)

    assert not any(each and each in str(refused.value) for each in given)


def test_a_server_of_ones_own_makes_a_key_that_only_its_user_reads(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "new")
    found: list[tuple[str, ...]] = []
    threads = [Thread(target=lambda: found.append(open_vault(settings).key_ids)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(found)) == 1 and len(found) == 8
    assert [path.name for path in settings.data_dir.iterdir()] == [KEY_FILE]
    assert stat.S_IMODE((settings.data_dir / KEY_FILE).stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "settings",
    [Settings(host="0.0.0.0"), Settings(host="example.com")],
)
def test_no_key_is_made_where_others_could_need_it(settings: Settings, tmp_path: Path) -> None:
    vault = open_vault(msgspec.structs.replace(settings, data_dir=tmp_path))

    assert vault.key_ids == ()
    assert list(tmp_path.iterdir()) == []


def test_a_key_file_that_is_none_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).write_bytes(b"\xff\xfe")

    with pytest.raises(Unavailable, match="encryption-key"):
        open_vault(Settings(data_dir=tmp_path))


def test_the_setting_is_read_and_counts_as_a_secret(tmp_path: Path) -> None:
    keys = f"a:{b64encode(NEW).decode()}, {b64encode(OLD).decode()}"

    settings = load({"FLOWSERVER_ENCRYPTION_KEYS": keys, "FLOWSERVER_HOST": "0.0.0.0"}, tmp_path / ".env")

    assert open_vault(settings).key_ids[0] == "a"
    assert set(settings.encryption_keys) <= set(secrets(settings))


def test_with_a_database_of_ones_own_no_place_for_a_key_is_no_reason_not_to_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    elsewhere = Settings(data_dir=tmp_path / "file", database_url="postgres://db/flow")

    assert open_vault(elsewhere).key_ids == ()
    with pytest.raises(Unavailable):
        open_vault(Settings(data_dir=tmp_path / "file"))
