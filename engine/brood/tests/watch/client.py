"""What the Python client promises, against the real engine with bare guests."""

import json
import os
import socket
import tempfile
import threading
import unittest
from decimal import Decimal
from http.client import HTTPConnection

from brood import Brood, Client, Denied, Ended, NotFound, Problem, Unauthorized, Unreachable

URL = os.environ["BROOD_URL"]
KEY = os.environ["BROOD_KEY"]


class Cut:
    """A way to the engine that loses the answers of the first requests, once the engine has given them."""

    def __init__(self, lose: int) -> None:
        self.lose = lose
        self.seen: list[bytes] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        host, port = URL.removeprefix("http://").split(":")
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            with client, socket.create_connection((host, int(port))) as engine:
                asked = b""
                while b"\r\n\r\n" not in asked:
                    asked += client.recv(65536)
                head, _, body = asked.partition(b"\r\n\r\n")
                length = next(
                    (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
                )
                while len(body) < length:
                    body += client.recv(65536)
                self.seen.append(head)
                engine.sendall(head + b"\r\n\r\n" + body)
                answer = b""
                while piece := engine.recv(65536):
                    answer += piece
                if len(self.seen) > self.lose:
                    client.sendall(answer)

    def keys(self) -> list[bytes]:
        lines = [line for head in self.seen for line in head.split(b"\r\n")]
        return [line for line in lines if line.lower().startswith(b"idempotency-key:")]


class Promises(unittest.TestCase):
    client = Client(URL, KEY)

    @classmethod
    def setUpClass(cls) -> None:
        cls.client.create_template("counter", guest="bare", memory_mib=64)

    def alive(self) -> int:
        return sum(1 for _ in self.client.machines())

    def test_machines_end_with_their_context_and_the_past_can_be_forked(self) -> None:
        with self.client.create("counter", labels={"team": "a"}) as mother:
            self.assertEqual(mother.info.labels, {"team": "a"})
            with mother.fork(3, labels={"team": "b"}) as daughters:
                self.assertIsInstance(daughters, Brood)
                self.assertEqual((len(daughters), daughters.requested, daughters.missing), (3, 3, []))
                self.assertGreater(daughters.timing.mother_pause_us or 0, 0)
                born = [daughter.birth for daughter in daughters]
                self.assertTrue(all(one and (one.first_instruction_us or 0) > 0 for one in born))
                self.assertEqual(len({daughter.id for daughter in daughters}), 3)
                self.assertEqual({one.info.mother for one in daughters}, {mother.id})
                by_label = {one.id for one in self.client.machines(label=("team", "b"))}
                self.assertEqual(by_label, {one.id for one in daughters})
                point = mother.checkpoint()
                of_point = point.fork(2)
                tree = mother.tree()
                self.assertEqual(len(tree.nodes), 7)
                self.assertEqual(len(tree.daughters(mother.id)), 4)
                self.assertEqual(len(tree.daughters(point.id)), 2)
                self.assertIn("checkpoint", str(tree))
                stats = daughters[0].stats()
                self.assertGreater(stats.private_kib, 0)
                self.assertEqual(stats.shared_kib, stats.pss_kib - stats.private_kib)
                with point, of_point:
                    self.assertEqual([one.id for one in self.client.checkpoints()], [point.id])
                self.assertEqual(list(self.client.checkpoints()), [])
                mother.pause()
                self.assertEqual(mother.refresh().state, "paused")
                mother.resume()
                self.assertEqual(mother.info.state, "running")
                daughters[0].kill()
                said = self.client.decisions(daughters.intent)
                self.assertEqual({one["hook"] for one in said}, {"admission", "placement", "mutation"})
            self.assertEqual(self.alive(), 1)
        self.assertEqual(self.alive(), 0)

    def test_a_snapshot_outlives_its_machine_travels_as_a_file_and_she_sleeps_under_her_id(self) -> None:
        with self.client.create("counter", labels={"team": "s"}) as mother, tempfile.TemporaryDirectory() as here:
            mother.hibernate()
            self.assertEqual((mother.info.state, self.client.machine(mother.id).info.state), ("hibernated",) * 2)
            asleep = [one for one in self.client.snapshots() if one.info.hibernates == mother.id]
            self.assertEqual(len(asleep), 1)
            with self.assertRaises(Problem) as refused:
                asleep[0].remove()
            self.assertEqual(refused.exception.code, "conflict")
            with self.assertRaises(Problem) as refused:
                mother.fork(1)
            self.assertIn("wake", refused.exception.detail)
            mother.wake()
            self.assertEqual(mother.info.state, "running")
            snapshot = mother.snapshot("kept")
            self.assertEqual((snapshot.info.machine, snapshot.info.labels), (mother.id, {"team": "s"}))
            self.assertEqual(self.client.snapshot("kept").id, snapshot.id)
            mother.kill()
            with snapshot, snapshot.fork(2, labels={"team": "t"}) as restored:
                self.assertEqual({one.info.mother for one in restored}, {None})
                self.assertEqual({one.info.lineage for one in restored}, {one.id for one in restored})
                file = os.path.join(here, "kept.brood")
                self.assertEqual(snapshot.export(file), os.path.getsize(file))
                self.assertEqual(os.stat(file).st_mode & 0o077, 0)
                with self.client.import_snapshot(file, name="again") as imported:
                    self.assertEqual((imported.info.machine, imported.info.guest), (mother.id, "bare"))
                    with imported.fork(1) as one:
                        self.assertEqual(len(one), 1)
                with open(file, "r+b") as half:
                    half.truncate(os.path.getsize(file) // 2)
                with self.assertRaises(Problem) as damaged:
                    self.client.import_snapshot(file)
                self.assertEqual(damaged.exception.code, "snapshot_damaged")
            self.assertEqual(list(self.client.snapshots()), [])

    def test_a_lost_answer_is_asked_for_again_with_the_same_key_and_done_once(self) -> None:
        with self.client.create("counter") as mother:
            way = Cut(lose=1)
            through = Client(way.url, KEY).machine(mother.id)
            # That was the request whose answer was lost, and again, since looking is safe.
            self.assertEqual((len(way.seen), way.keys()), (2, []))
            way.seen.clear()
            daughters = through.fork(2)
            self.assertEqual(len(daughters), 2)
            keys = way.keys()
            self.assertEqual((len(keys), len(set(keys))), (2, 1))
            self.assertEqual(self.alive(), 3, "two daughters, not four")
            with daughters:
                pass
            way.seen.clear()
            # A second call is a second fork.
            with through.fork(1, idempotency_key="mine"), through.fork(1):
                self.assertEqual(len(set(way.keys())), 2)
                self.assertEqual(self.alive(), 3)
            way.seen.clear()
            # Ending has no key, and nobody could tell what a second one was answered.
            with self.assertRaises(Unreachable):
                through.kill()
            self.assertEqual(len(way.seen), 1)
            way.listener.close()

    def test_nobody_there_is_said_so(self) -> None:
        closed = socket.create_server(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        closed.close()
        with self.assertRaisesRegex(Unreachable, f"127.0.0.1:{port} cannot be reached"):
            Client(f"http://127.0.0.1:{port}", KEY, patience=0).info()

    def test_problems_are_exceptions_with_the_engines_own_words(self) -> None:
        with self.assertRaises(NotFound) as none:
            self.client.machine("0" * 32)
        problem = none.exception
        self.assertEqual((problem.status, problem.code, problem.retryable), (404, "not_found", False))
        self.assertTrue(problem.cause and problem.remediation and problem.request_id)
        self.assertIn(problem.detail, str(problem))
        with self.assertRaises(Unauthorized):
            Client(URL, "brood_" + "0" * 64).info()
        with self.client.create("counter") as mother:
            with self.assertRaises(Denied) as denied:
                mother.fork(200)
            self.assertTrue(denied.exception.binding and denied.exception.denial_code)
            self.assertIn("64", denied.exception.message)
            with self.assertRaises(Problem) as wrong:
                mother.fork(0)
            self.assertEqual(wrong.exception.code, "invalid_request")
            self.assertEqual([one.pointer for one in wrong.exception.errors], ["/count"])
            mother.kill()
            with self.assertRaises(Ended):
                mother.fork(1)
        # A bare guest has nobody to run programs, and says so.
        with self.client.create("counter") as bare:
            with self.assertRaises(Problem) as refused:
                bare.exec(["true"])
            self.assertEqual(refused.exception.code, "conflict")
            with self.assertRaises(TypeError):
                bare.exec("true")  # type: ignore[arg-type]

    def test_events_are_followed_from_a_number_on(self) -> None:
        with self.client.create("counter", name="watched") as mother:
            # All that has happened by now is there to be read.
            events = self.client.events()
            for event in events:
                if event.subject == mother.id:
                    break
            self.assertEqual(event.kind, "machine.born")
            daughters = mother.fork(2)
            seen = [next(events) for _ in range(2)]
            self.assertEqual([one.kind for one in seen], ["machine.born"] * 2)
            self.assertEqual({one.subject for one in seen}, {one.id for one in daughters})
            self.assertEqual(next(self.client.events(after=seen[0].number)).number, seen[1].number)
            with daughters:
                pass

    def test_usage_is_exact_adds_up_and_is_found_by_what_it_is_of(self) -> None:
        with self.client.create("counter", labels={"bill": "me"}) as mother:
            with mother.fork(2, labels={"bill": "you"}):
                pass
        self.client.rate()
        usage = self.client.usage(by="label:bill", lineage=mother.id)
        forks = {one.group: one.measured.forks for one in usage.groups}
        self.assertEqual(forks, {"me": Decimal(1), "you": Decimal(2)})
        charges = [charge for one in usage.groups for charge in one.charges]
        self.assertEqual({one.item for one in charges}, {"list/vcpu-hour", "list/gib-hour", "list/fork"})
        self.assertEqual(usage.totals, {"EUR": sum((one.amount for one in charges), Decimal(0))})
        of_fork = [one for one in charges if one.item == "list/fork"]
        self.assertEqual(sum(one.amount for one in of_fork), Decimal("0.0003"))
        hers = self.client.usage(usage.period, machine=mother.id, label=("bill", "me"))
        self.assertEqual([one.measured.forks for one in hers.groups], [Decimal(1)])
        self.assertEqual(self.client.usage("2001-01").groups, ())
        with self.assertRaises(Problem) as wrong:
            self.client.usage("2026-13")
        self.assertEqual(wrong.exception.code, "invalid_request")

    def test_every_operation_that_remembers_its_answers_gets_a_key(self) -> None:
        """The document says which they are; the client has all of them."""
        host, port = URL.removeprefix("http://").split(":")
        connection = HTTPConnection(host, int(port))
        connection.request("GET", "/v1/openapi.json")
        document = json.load(connection.getresponse())
        connection.close()
        takes = {
            name
            for name, item in document["paths"].items()
            for one in item.values()
            if any(parameter["name"] == "Idempotency-Key" for parameter in one.get("parameters", []))
        }
        known = {
            "/v1/machines",
            "/v1/machines/{machine}/forks",
            "/v1/machines/{machine}/checkpoints",
            "/v1/machines/{machine}/snapshots",
            "/v1/checkpoints/{checkpoint}/forks",
            "/v1/checkpoints/{checkpoint}/snapshots",
            "/v1/snapshots/{snapshot}/forks",
        }
        self.assertLessEqual(known, takes)


if __name__ == "__main__":
    unittest.main()
