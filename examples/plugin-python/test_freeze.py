import unittest

import freeze

FREEZE = '{"from": "2026-12-24T00:00:00Z", "until": "2026-12-27T00:00:00Z", "why": "holidays", "except": ["on-call"]}'
START = 1_798_070_400 * 1_000_000_000
END = START + 3 * 86_400 * 1_000_000_000


def freezes(*entries):
    found, wrong = freeze.read('{"freezes": [' + ",".join(entries) + "]}")
    assert not wrong, wrong
    return found


class Freezes(unittest.TestCase):
    def test_freeze_holds_from_its_first_second_to_the_one_before_its_end(self):
        within = lambda now: freeze.refusal(freezes(FREEZE), "acme", now)
        self.assertIsNone(within(START - 1))
        self.assertEqual(within(START), ("nothing new begins until 2026-12-27 00:00:00 UTC: holidays", 259_200_000))
        self.assertEqual(within(END - 1)[1], 1)
        self.assertIsNone(within(END))

    def test_exempt_tenant_goes_on(self):
        self.assertIsNone(freeze.refusal(freezes(FREEZE), "on-call", START))

    def test_longest_of_several_freezes_is_named(self):
        longer = FREEZE.replace("12-27", "12-28").replace("holidays", "move")
        words, _ = freeze.refusal(freezes(longer, FREEZE), "acme", START)
        self.assertTrue(words.endswith("28 00:00:00 UTC: move"), words)

    def test_every_mistake_is_reported_with_its_place(self):
        _, wrong = freeze.read('{"freezes": [{"from": "x", "until": "2026-12-27T00:00:00Z", "wy": 1}, 3], "more": 1}')
        places = [at for at, _ in wrong]
        self.assertEqual(places, ["/more", "/freezes/0/wy", "/freezes/0/from", "/freezes/0/why", "/freezes/1"])
        self.assertEqual(freeze.read("{")[1][0][0], "")
        backwards = FREEZE.replace("12-27", "12-24")
        self.assertEqual(freeze.read('{"freezes": [' + backwards + "]}")[1], [("/freezes/0/until", "not after `from`")])


if __name__ == "__main__":
    unittest.main()
