//! PAX records (pax(1), "pax Extended Header"). Invariant: a value may hold any byte; a record that is not as long as it says
//! makes all of them worth nothing.

use std::collections::BTreeMap;

/// pax(1): `LENGTH KEY=VALUE\n`, where the length is that of the whole record. A value may hold any byte.
pub(crate) fn records(mut bytes: &[u8]) -> Option<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut records = BTreeMap::new();
    while !bytes.is_empty() {
        let space = bytes.iter().take(20).position(|byte| *byte == b' ')?;
        let length = usize::try_from(number(bytes.get(..space)?)?).ok()?;
        let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|byte| *byte == b'=')?;
        records.insert(
            record.get(..equals)?.to_owned(),
            record.get(equals + 1..)?.to_owned(),
        );
        bytes = bytes.get(length..)?;
    }
    Some(records)
}

pub(crate) fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Whole seconds of a time with a fraction; one before 1970 is at 1970.
pub(crate) fn seconds(value: &[u8]) -> Option<u64> {
    let whole = value.split(|byte| *byte == b'.').next()?;
    if whole.starts_with(b"-") {
        return Some(0);
    }
    number(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_may_hold_line_feeds_and_the_length_is_that_of_the_record() {
        let records = records(b"11 a=1\n2\n3\n6 b=\n\n").expect("two records");
        assert_eq!(
            records.get(&b"a"[..]).map(Vec::as_slice),
            Some(&b"1\n2\n3"[..])
        );
        assert_eq!(records.get(&b"b"[..]).map(Vec::as_slice), Some(&b"\n"[..]));
    }

    #[test]
    fn record_of_another_length_is_refused() {
        for bad in [
            "6 a=1",
            "7 a=1\n",
            "5 a=1\n",
            "x a=1\n",
            "6 a1x\n",
            "0 a=1\n",
            "99999999999999999999 a=1\n",
        ] {
            assert_eq!(records(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(records(b"6 a=1\n").map(|records| records.len()), Some(1));
    }

    #[test]
    fn fraction_of_a_second_is_dropped_and_times_before_1970_are_1970() {
        assert_eq!(seconds(b"1700000000.123"), Some(1_700_000_000));
        assert_eq!((seconds(b"-5.5"), seconds(b"x")), (Some(0), None));
    }
}
