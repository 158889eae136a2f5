"""The browser client outside of a browser: its pure parts in Node, and its types."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.kit.programs import MODULES, ROOT, find_program, need_modules

HERE = Path(__file__).parent
STATIC = ROOT / "asgi_comet" / "static"

COMPILE = [
    *("--strict", "--noEmit", "--noUnusedLocals"),
    *("--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler"),
    *("--lib", "es2022,dom"),
]


def run(*command: str | Path) -> str:
    """Run a program that is to succeed; return what it printed."""
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_pure_parts_do_what_they_say() -> None:
    output = run(find_program("node"), "--test", HERE / "pure.test.mjs")
    assert "# fail 0" in output
    assert "# pass 0" not in output


def test_the_types_fit_a_page_in_typescript() -> None:
    """Mistakes in it are marked with `@ts-expect-error`, which is an error where there is none."""
    need_modules()
    find_program("node")
    run(MODULES / ".bin" / "tsc", *COMPILE, HERE / "example.ts")


def test_the_module_exports_what_the_types_promise(tmp_path: Path) -> None:
    need_modules()
    promised = {"ChannelClosed", "ChannelFull", "CometError", "ProcessClosed", "connect"}
    module = tmp_path / "comet.mjs"
    module.write_bytes((STATIC / "comet.js").read_bytes())
    script = f"import * as comet from '{module.as_uri()}'; console.log(Object.keys(comet).join())"
    found = run(find_program("node"), "--input-type=module", "--eval", script)
    assert promised <= set(found.strip().split(","))
    described = (STATIC / "comet.d.ts").read_text()
    for name in promised:
        assert f"class {name} " in described or f"function {name}(" in described
