import pytest

from lib_events.trace_context import TraceContext, span_named, trace_named

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"


@pytest.mark.parametrize(("flags", "is_sampled"), [("00", False), ("01", True), ("03", True), ("02", False)])
def test_a_traceparent_is_read_with_what_its_flags_say(flags, is_sampled):
    assert TraceContext.parse(f"00-{TRACE}-{SPAN}-{flags}") == TraceContext(TRACE, SPAN, is_sampled)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "00",
        f"01-{TRACE}-{SPAN}-00",
        f"00-{'0' * 32}-{SPAN}-00",
        f"00-{TRACE}-{'0' * 16}-00",
        f"00-{TRACE.upper()}-{SPAN}-00",
    ],
)
def test_what_is_no_traceparent_names_no_span(text):
    assert TraceContext.parse(text) is None


def test_what_is_written_is_read_again():
    context = TraceContext(TRACE, SPAN, is_sampled=True)
    assert TraceContext.parse(str(context)) == context


def test_ids_follow_from_names_and_differ_with_them():
    assert span_named("run", "a", 1) == span_named("run", "a", 1)
    assert (
        len({span_named("run", "a", 1), span_named("run", "a", 2), span_named("run", "a1", ""), trace_named("a")}) == 4
    )
    assert TraceContext.parse(str(TraceContext(trace_named(""), span_named()))) is not None
