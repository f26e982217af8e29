"""Secrets at rest, and secrets that follow from what is asked for."""

from lib_events.sealed import SealingKey


def test_what_is_derived_is_the_same_each_time_for_its_key_and_its_purpose_alone():
    text = SealingKey.generate()
    key, same, other = SealingKey(text), SealingKey(text), SealingKey(SealingKey.generate())
    derived = key.derive("grace", purpose="invitation")
    assert (len(derived), same.derive("grace", purpose="invitation")) == (43, derived)
    others = {key.derive("ada", purpose="invitation"), key.derive("grace", purpose="else")}
    others |= {other.derive("grace", purpose="invitation")}
    assert len(others - {derived}) == 3
