//! Standard output and what goes there.
//!
//! Invariant: in JSON, what goes to standard output is the answer and nothing else. Colour and progress are for terminals,
//! and colour not where NO_COLOR is set. What comes from elsewhere cannot steer a terminal: only a guest program's own output
//! goes through as it is.

use std::io::{IsTerminal, Read, Write};

use anstream::AutoStream;
use anstyle::{AnsiColor, Style};
use brood_api::machine::State;
use brood_api::{Cursor, Page};
use brood_client::ClientError;
use serde::Serialize;

use super::failure::Failure;
use super::session::Format;

pub(super) const DIM: Style = Style::new().dimmed();
pub(super) const BOLD: Style = Style::new().bold();
pub(super) const PLAIN: Style = Style::new();

/// The colour of a state.
pub(super) const fn colour(state: State) -> Style {
    match state {
        State::Running => AnsiColor::Green.on_default(),
        State::Paused => AnsiColor::Yellow.on_default(),
        State::Frozen => AnsiColor::Cyan.on_default(),
        State::Hibernated => AnsiColor::Blue.on_default(),
        State::Ended => DIM,
    }
}

/// How a command shows what it was told.
#[derive(Clone, Copy)]
pub(super) struct Out {
    format: Format,
}

impl Out {
    pub(super) fn new(format: Format) -> Self {
        Self { format }
    }

    pub(super) fn is_text(self) -> bool {
        self.format == Format::Text
    }

    /// An answer: in JSON as it is, for people as `text` says it.
    pub(super) fn answer<T: Serialize>(
        self,
        answer: &T,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Json => {
                let json = serde_json::to_string(answer);
                let json = json.map_err(|error| Failure::local(format!("{error}")))?;
                raw(format!("{json}\n").as_bytes())
            }
            Format::Text => print(&text()),
        }
    }

    /// Shows on a terminal what is waited for, until it is there.
    pub(super) fn waiting(self, words: &str) -> Waiting {
        let shown = self.is_text() && std::io::stderr().is_terminal();
        if shown {
            // Who watches loses nothing but this line.
            write!(std::io::stderr(), "{words} …").ok();
        }
        Waiting { shown }
    }

    /// Shows on a terminal how much has gone by.
    pub(super) fn progress(self, words: &'static str) -> Progress {
        let is_shown = self.is_text() && std::io::stderr().is_terminal();
        Progress {
            words,
            bytes: 0,
            shown: is_shown.then_some(0),
        }
    }
}

/// What is waited for.
pub(super) struct Waiting {
    shown: bool,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.shown {
            // ECMA-48 §8.3.41: the line is empty again.
            write!(std::io::stderr(), "\r\x1b[K").ok();
        }
    }
}

/// How many bytes have gone by, shown on a terminal.
pub(super) struct Progress {
    words: &'static str,
    bytes: u64,
    /// MiB that are shown; none where nobody looks.
    shown: Option<u64>,
}

impl Progress {
    /// What comes out of it is counted.
    pub(super) fn reading<R: Read>(&mut self, from: R) -> Counted<'_, R> {
        Counted {
            from,
            progress: self,
        }
    }

    fn count(&mut self, bytes: usize) {
        self.bytes += u64::try_from(bytes).unwrap_or(0);
        let mib = self.bytes >> 20;
        if self.shown.is_some_and(|shown| shown != mib) {
            self.shown = Some(mib);
            // Who watches loses nothing but this line.
            write!(std::io::stderr(), "\r{} {mib} MiB …", self.words).ok();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown.is_some_and(|shown| shown > 0) {
            // ECMA-48 §8.3.41: the line is empty again.
            write!(std::io::stderr(), "\r\x1b[K").ok();
        }
    }
}

/// A reader whose bytes are counted.
pub(super) struct Counted<'a, R> {
    from: R,
    progress: &'a mut Progress,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.progress.count(read);
        Ok(read)
    }
}

/// Prints text for people, with its colours where they are wanted.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = AutoStream::auto(std::io::stdout().lock());
    stdout.write_all(text.as_bytes())?;
    if !text.is_empty() && !text.ends_with('\n') {
        stdout.write_all(b"\n")?;
    }
    Ok(stdout.flush()?)
}

/// Prints bytes as they are.
pub(super) fn raw(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(bytes)?;
    Ok(stdout.flush()?)
}

/// Text in a style.
pub(super) fn styled(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// Text that cannot steer a terminal.
pub(super) fn plain(text: &str) -> String {
    let harmless = |c: char| {
        if c.is_control() && c != '\n' {
            '\u{fffd}'
        } else {
            c
        }
    };
    text.chars().map(harmless).collect()
}

/// Columns of text.
pub(super) struct Table {
    rows: Vec<Vec<(Style, String)>>,
}

impl Table {
    pub(super) fn new(head: &[&str]) -> Self {
        let head = head.iter().map(|name| (DIM, (*name).to_owned()));
        Self {
            rows: vec![head.collect()],
        }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = (Style, String)>) {
        let harmless = |(style, text): (Style, String)| (style, plain(&text).replace('\n', " "));
        self.rows.push(cells.into_iter().map(harmless).collect());
    }

    pub(super) fn draw(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|(_, text)| text.chars().count()).max()
        };
        let widths: Vec<usize> = (0..columns).filter_map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            // Between one cell and the next that is not empty; behind the last there is nothing.
            let mut gap = 0;
            for ((style, cell), width) in row.iter().zip(&widths) {
                let long = cell.chars().count();
                if long > 0 {
                    text.extend(std::iter::repeat_n(' ', gap));
                    text.push_str(&styled(*style, cell));
                    gap = 0;
                }
                gap += width.saturating_sub(long) + 2;
            }
            text.push('\n');
        }
        text
    }
}

/// All objects of a list, page after page, or the first `most` and where the rest begins.
pub(super) fn pages<T>(
    most: Option<u32>,
    page: impl Fn(u32, Option<Cursor>) -> Result<Page<T>, ClientError>,
) -> Result<Page<T>, ClientError> {
    /// Objects of one answer.
    const LIMIT: u32 = 1000;
    let mut all = Page {
        items: Vec::new(),
        next: None,
    };
    loop {
        let have = u32::try_from(all.items.len()).unwrap_or(u32::MAX);
        let limit = most.map_or(LIMIT, |most| most.saturating_sub(have).min(LIMIT));
        if limit == 0 {
            return Ok(all);
        }
        let mut found = page(limit, all.next)?;
        all.items.append(&mut found.items);
        all.next = found.next;
        if all.next.is_none() {
            return Ok(all);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other_and_nothing_in_them_steers_a_terminal() {
        let mut table = Table::new(&["ID", "LABELS"]);
        table.row([
            (PLAIN, "1234".to_owned()),
            (PLAIN, "a=\u{1b}[31m\nb".to_owned()),
        ]);
        let drawn = anstream::adapter::strip_str(&table.draw()).to_string();
        assert_eq!(drawn, "ID    LABELS\n1234  a=\u{fffd}[31m b\n");
    }

    #[test]
    fn a_list_is_read_to_its_end_or_to_as_many_as_are_wanted() {
        let page = |limit: u32, cursor: Option<Cursor>| {
            let first = cursor.map_or(1, |cursor| cursor.0 + 1);
            let places = first..=(first + i64::from(limit) - 1).min(2500);
            Ok(Page::of(limit, places.map(|place| (place, place))))
        };
        let all = pages(None, page).expect("pages");
        assert_eq!((all.items.len(), all.next), (2500, None));
        let some = pages(Some(1200), page).expect("pages");
        assert_eq!((some.items.len(), some.next), (1200, Some(Cursor(1200))));
    }
}
