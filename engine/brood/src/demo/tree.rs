//! The lineage as a tree, one line a machine.

use std::fmt::Write;

use super::Row;

/// What is shown of a host name.
const LONGEST_NAME: usize = 10;

/// Draws every machine below its mother; a mother who is gone is a root of her own.
pub(super) fn draw(rows: &[&Row]) -> String {
    let mut text = format!(
        "{:<28} {:<13} {:>8} {:>9} {:>10} {:>10} {:>11} {:>9} {:>9}\n",
        "lineage",
        "kind",
        "count",
        "pause us",
        "1st ins us",
        "confirm us",
        "1st answer",
        "private K",
        "pss K"
    );
    let known = |id: &Option<String>| {
        id.as_ref()
            .is_some_and(|id| rows.iter().any(|row| row.id == *id))
    };
    for root in rows.iter().filter(|row| !known(&row.mother)) {
        line(&mut text, root, "", "");
        below(&mut text, rows, root, "");
    }
    text
}

fn below(text: &mut String, rows: &[&Row], mother: &Row, indent: &str) {
    let daughters: Vec<_> = rows
        .iter()
        .filter(|row| row.mother.as_deref() == Some(mother.id.as_str()))
        .collect();
    for (index, daughter) in daughters.iter().enumerate() {
        let last = index + 1 == daughters.len();
        let (branch, trunk) = if last {
            ("└─ ", "   ")
        } else {
            ("├─ ", "│  ")
        };
        line(text, daughter, indent, branch);
        below(text, rows, daughter, &format!("{indent}{trunk}"));
    }
}

fn line(text: &mut String, row: &Row, indent: &str, branch: &str) {
    // A name that policy made holds the whole id, which stands beside it.
    let short: String = row.hostname.chars().take(LONGEST_NAME).collect();
    // Ids of sisters follow one another: what tells them apart is their end.
    let end = row
        .id
        .get(row.id.len().saturating_sub(8)..)
        .unwrap_or(&row.id);
    let name = format!("{indent}{branch}{short} {end}");
    let number = |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{value:.0}"));
    let count = row
        .count_at_fork
        .map_or("–".to_owned(), |count| count.to_string());
    // Writing to a String cannot fail.
    writeln!(
        text,
        "{name:<28} {:<13} {count:>8} {:>9} {:>10} {:>10} {:>11.0} {:>9} {:>9}",
        row.kind,
        number(row.pause_us),
        number(row.first_instruction_us),
        number(row.confirmed_us),
        row.first_answer_us,
        row.private_kib,
        row.pss_kib
    )
    .ok();
}
