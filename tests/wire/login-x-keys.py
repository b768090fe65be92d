# SPDX-License-Identifier: BSD-3-Clause
"""X- keys, one of them long, are answered NotUnderstood and nothing else changes."""
from violation import *


def violate(w):
    keys = {"X-com.example.a": "1", "X#b": "2", "X-com.example.long": "v" * 255}
    c = w.session(DISK, **keys)
    if any(c.login_text.get(k) != "NotUnderstood" for k in keys):
        raise Wrong(str(c.login_text))
