"""`pipeline` and `python -m lib_pipeline`: the command line."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from lib_pipeline.errors import PipelineError
from lib_pipeline.image import BASE
from lib_pipeline.imaging import ImageRequest, image_report
from lib_pipeline.results import Screen, exit_code, report, screen_of_process, write_report
from lib_pipeline.running import Request, default_jobs, run
from lib_pipeline.self_test import self_test
from lib_pipeline.targets import TASKS, Target
from lib_pipeline.workspace import find_root

ALL = "all"
SELF_TEST = "self-test"
UNUSABLE = 2
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; returns the exit code: 0 green, 1 red, 2 not started, 130 interrupted."""
    options = _parser().parse_intermixed_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends what we have started, as Ctrl-C does
    screen = screen_of_process()
    try:
        return _answer(options, screen)
    except PipelineError as error:
        screen.say(f"pipeline: {error}")
        return UNUSABLE
    except KeyboardInterrupt:
        screen.say("pipeline: interrupted")
        return INTERRUPTED


def _answer(options: argparse.Namespace, screen: Screen) -> int:
    root = find_root((options.root or Path.cwd()).resolve())
    if options.words[:1] == [SELF_TEST]:
        return self_test(root, os.environ, screen)
    request = _request(options, root)
    ended = run(request, os.environ, screen)
    screen.show_failures(ended.results)
    there = {result.task.target for result in ended.results}
    shown = tuple(target for target in Target if target in there or target in request.targets)
    left_out = f"image: left out, {ended.left_out}" if ended.left_out else ""
    screen.show_table(ended.results, shown, ended.seconds, ended.cache, left_out)
    for each in ended.images:
        screen.out.write(f"{each.tags[0]}  {each.id}\n")
    if options.report:
        content = report(ended.results, ended.cache, seconds=ended.seconds)
        write_report(options.report, content | {"images": image_report(ended.images), "left_out": left_out})
    return exit_code(ended.results)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pipeline", description="Does for members of a uv workspace what is not done yet."
    )
    targets, tasks = ", ".join(Target), ", ".join(TASKS)
    parser.add_argument(
        "words",
        nargs="*",
        metavar="TARGET|MEMBER",
        help=f"{targets}, {ALL} of them, or {SELF_TEST}; then members. Without one: {tasks}",
    )
    parser.add_argument(
        "--affected", action="store_true", help="only what the changes since this branch began can reach"
    )
    parser.add_argument("--since", metavar="COMMIT", help="compare with this commit instead (means --affected)")
    parser.add_argument("--no-cache", action="store_true", help="run everything, remember nothing")
    parser.add_argument(
        "--jobs", type=int, default=default_jobs(), metavar="N", help="tasks side by side (default: one per core)"
    )
    parser.add_argument(
        "--untested", action="store_true", help="images, and a label that says so, also of what has not passed"
    )
    parser.add_argument("--base", default=BASE, metavar="IMAGE", help=f"what images stand on (default: {BASE})")
    parser.add_argument("--builder", choices=("buildah", "docker"), help="what builds images (default: what is there)")
    parser.add_argument(
        "--prefix", default="", metavar="TEXT", help="before the names of images: registry.example/team/"
    )
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the results as JSON")
    parser.add_argument("--root", type=Path, metavar="DIR", help="a folder of the workspace (default: here)")
    return parser


def _request(options: argparse.Namespace, root: Path) -> Request:
    """Leading words that are targets say what; the others say for whom."""
    known = {*Target, ALL}
    split = next((place for place, word in enumerate(options.words) if word not in known), len(options.words))
    asked, members = options.words[:split], options.words[split:]
    everything = not asked or ALL in asked
    return Request(
        root=root,
        targets=tuple(target for target in TASKS if everything or target in asked),
        members=tuple(members),
        affected_only=options.affected or options.since is not None,
        since=options.since,
        uses_cache=not options.no_cache,
        jobs=max(1, options.jobs),
        images=_images(options, asked),
    )


def _images(options: argparse.Namespace, asked: Sequence[str]) -> ImageRequest | None:
    """Asked for by name they are required, as a part of all they are made where something can."""
    if Target.IMAGE not in asked and ALL not in asked:
        return None
    return ImageRequest(
        required=Target.IMAGE in asked,
        base=options.base,
        builder=options.builder,
        prefix=options.prefix,
        tested=not options.untested,
    )


if __name__ == "__main__":
    sys.exit(main())
