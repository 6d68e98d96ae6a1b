"""Runs a code block of the client's README as it stands there. Arguments: the README, and the block's number."""

import re
import sys
from pathlib import Path

text = Path(sys.argv[1]).read_text()
blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
block = blocks[int(sys.argv[2])]
exec(compile(block, f"block {sys.argv[2]} of {sys.argv[1]}", "exec"), {"__name__": "__main__"})
