"""Guards that are removed by hand, one at a time: the text, what it becomes, and the tests that must notice."""

from typing import Final, NamedTuple

from trial import PACKAGE, ROOT, Change

ADMISSION: Final = ("tests/unit/fronts/test_admission.py", "tests/unit/fronts/test_http_guards.py")
SESSIONS: Final = ("tests/unit/fronts/test_admission.py", "tests/unit/fronts/test_http_handshake.py")
MODERN: Final = ("tests/unit/fronts/test_http_modern.py", "tests/unit/fronts/test_inbound.py")
BRIDGE: Final = tuple(
    f"tests/{name}.py" for name in ("unit/core/test_ownership", "unit/core/test_bridge", "contract/test_interaction")
)
CALLS: Final = (
    "tests/unit/core/test_call_notes.py",
    "tests/unit/core/test_dispatcher.py",
    "tests/unit/core/test_plan.py",
)
POLICY: Final = ("tests/unit/model/test_policy.py",)
BACKENDS: Final = ("tests/unit/backends/calls/test_breaker.py", "tests/unit/backends/test_backend.py", *CALLS)


class Guard(NamedTuple):
    """A guard: what is lost without it, where it is, and how it is removed."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def change(self) -> Change:
        """The file without the guard.

        Raises:
            SystemExit: the text is not there exactly once.
        """
        text = (ROOT / PACKAGE / self.file).read_text("utf-8")
        if text.count(self.old) != 1:
            raise SystemExit(f"{self.name}: found {text.count(self.old)} times in {self.file}, not once: {self.old!r}")
        return Change(self.name, self.file, text.replace(self.old, self.new), self.tests)


GUARDS: Final = (
    # admission: who may send a request
    Guard(
        "tokens are compared in constant time",
        "fronts/http/guard.py",
        "if hmac.compare_digest(known, digest):",
        "if known == digest:",
        ADMISSION,
    ),
    Guard(
        "a wrong token is refused",
        "fronts/http/guard.py",
        "raise Refused(HttpError.NO_TOKEN)",
        "return ANONYMOUS",
        ADMISSION,
    ),
    Guard(
        "a foreign Host is refused",
        "fronts/http/guard.py",
        "if not is_any_host and (host is None or not self.admits_host(host)):",
        "if not is_any_host and host is None:",
        ADMISSION,
    ),
    Guard(
        "a foreign Origin is refused",
        "fronts/http/guard.py",
        "if origin is not None and not self.admits_origin(origin):",
        "if False:",
        ADMISSION,
    ),
    Guard(
        "a repeated header is refused",
        "fronts/http/admission.py",
        "if len(headers) != len(head.lines):",
        "if False:",
        ADMISSION,
    ),
    Guard(
        "other paths need a token too",
        "fronts/http/admission.py",
        "if path not in self._open_paths and _WELL_KNOWN not in path:",
        "if False:",
        ADMISSION,
    ),
    Guard(
        "a body that is not JSON is refused",
        "fronts/http/admission.py",
        'if not self._is_json(headers.get(b"content-type", b"")):',
        "if False:",
        ADMISSION,
    ),
    Guard(
        "headers of a handshake request match its body",
        "fronts/http/front.py",
        "if decision.has_mirrors:",
        "if False:",
        (*SESSIONS, *MODERN),
    ),
    Guard(
        "headers of a modern request match its body",
        "fronts/checks.py",
        "if value is None or value != expected:",
        "if value is None:",
        MODERN,
    ),
    # sessions: whose they are, and how long
    Guard(
        "a session belongs to its principal",
        "fronts/sessions.py",
        "session.principal.key == principal.key and ",
        "",
        SESSIONS,
    ),
    Guard("a session belongs to its endpoint", "fronts/sessions.py", " and session.scope == scope", "", SESSIONS),
    Guard(
        "a remembered head does not outlive its session",
        "fronts/http/front.py",
        "if opened is None or opened.ended:\n            if method",
        "if opened is None:\n            if method",
        SESSIONS,
    ),
    Guard(
        "a remembered head does not outlive the settings",
        "fronts/http/front.py",
        "if not isinstance(decision, AdmissionDecision) or decision.validator is not validator:",
        "if not isinstance(decision, AdmissionDecision):",
        SESSIONS,
    ),
    Guard(
        "a head is decided again if the settings changed while the body arrived",
        "fronts/http/front.py",
        "return decision if decision.validator is self._validator else self._validator.admit(head)",
        "return decision",
        ADMISSION,
    ),
    Guard(
        "an ended session takes no call",
        "fronts/sessions.py",
        "if self.ended:\n            raise Refused(HttpError",
        "if False:\n            raise Refused(HttpError",
        SESSIONS,
    ),
    Guard("an id in flight is not used twice", "fronts/sessions.py", "if key in self.active:", "if False:", SESSIONS),
    Guard(
        "the limit of calls is exact",
        "fronts/sessions.py",
        "if len(self.active) >= limit:",
        "if len(self.active) > limit:",
        SESSIONS,
    ),
    Guard(
        "the limit of sessions is exact",
        "fronts/sessions.py",
        "if len(self._kept) >= self._gateway.settings.limits.max_sessions:\n            logger",
        "if len(self._kept) > self._gateway.settings.limits.max_sessions:\n            logger",
        SESSIONS,
    ),
    # policy: what a principal sees and calls
    Guard(
        "a hidden tool cannot be called",
        "core/plan.py",
        "view.catalogue.tools.get(name) or view.catalogue.find(",
        "view.whole.tools.get(name) or view.whole.find(",
        CALLS,
    ),
    Guard(
        "a grant limits the backends",
        "model/policy.py",
        "return limit is None or backend in limit",
        "return True",
        POLICY,
    ),
    Guard(
        "a hidden resource cannot be read",
        "model/policy.py",
        "return route if entry.key in view.resources else None",
        "return route",
        POLICY,
    ),
    Guard(
        "a blocked URI cannot be read", "model/policy.py", "if any(each.blocks_uri(route.uri) or ", "if any(", POLICY
    ),
    # bridge: whose parked calls are
    Guard(
        "a requestState belongs to its principal",
        "core/bridge.py",
        "not _is_of(parked.session, call.session) or ",
        "",
        BRIDGE,
    ),
    Guard(
        "a requestState belongs to its endpoint",
        "core/bridge.py",
        "(first.principal.key, first.scope) == (second.principal.key, second.scope)",
        "first.principal.key == second.principal.key",
        BRIDGE,
    ),
    Guard("a requestState belongs to its target", "core/bridge.py", " or parked.target != target.key", "", BRIDGE),
    Guard(
        "a call to repeat belongs to its principal", "core/bridge.py", "_is_of(self.session, session) and ", "", BRIDGE
    ),
    Guard(
        "a requestState is used once",
        "core/bridge.py",
        "        self._repeats.forget(repeat.state)\n\n    def resume",
        "        pass\n\n    def resume",
        BRIDGE,
    ),
    Guard(
        "a task belongs to its principal",
        "model/task_table.py",
        "self.session.principal.key == session.principal.key and ",
        "",
        ("tests/contract/test_tasks.py",),
    ),
    # dispatcher: one answer, one slot
    Guard("a call that is answered is done", "core/dispatcher.py", "        call.is_done = True\n", "", CALLS),
    Guard(
        "a cancelled call is answered with no result",
        "fronts/http/reply.py",
        "self.has_failed = result is None or self.call.is_cancelled",
        "self.has_failed = result is None",
        SESSIONS,
    ),
    Guard(
        "a wait that ended late finds its call cancelled",
        "core/dispatcher.py",
        "if self.call.is_cancelled:\n            self._complete(",
        "if False:\n            self._complete(",
        CALLS,
    ),
    Guard(
        "a call that waits is cancelled",
        "core/dispatcher.py",
        'self._task.cancel("the caller cancelled the request")',
        "pass",
        CALLS,
    ),
    Guard("a call that cannot be sent ends", "core/dispatcher.py", "if self._plans > MAX_PLANS:", "if False:", CALLS),
    Guard(
        "a stage that refused sees no end",
        "core/dispatcher.py",
        "self._ended[len(self._ended) - seen :]",
        "self._ended",
        CALLS,
    ),
    Guard(
        "an unused slot is given back",
        "core/dispatcher.py",
        "if call.slot is not None:\n                _left(call.slot)",
        "if False:\n                _left(call.slot)",
        CALLS,
    ),
    Guard(
        "a slot is given back",
        "backends/calls/executor.py",
        "if request.task is None:\n            self.leave()",
        "if request.task is None:\n            pass",
        BACKENDS,
    ),
    Guard(
        "the limit of concurrent calls is exact",
        "core/plan.py",
        "if executor.running >= executor.most and",
        "if executor.running > executor.most and",
        CALLS,
    ),
    Guard(
        "the breaker opens", "backends/calls/breaker.py", "0 < self._failures <= self.failed_in_row", "False", BACKENDS
    ),
    Guard(
        "an open breaker refuses calls",
        "core/plan.py",
        "if executor.breaker.is_shut and not call.attempts:",
        "if False:",
        CALLS,
    ),
    Guard(
        "a server request of unknown origin goes to no client",
        "backends/link/server_requests.py",
        "if len(clients) != 1 or any(pending.is_parked for pending in working):",
        "if not clients or any(pending.is_parked for pending in working):",
        ("tests/unit/backends/link/test_server_requests.py", *BRIDGE),
    ),
)
