//! Writing a JSON Schema: one flat object after another, as text.

/// The members of a schema object, as they are written.
pub struct Schema {
    out: String,
    empty: bool,
}

impl Schema {
    pub(super) fn new() -> Self {
        let out = String::from("{");
        Self { out, empty: true }
    }

    pub(super) fn finish(mut self) -> String {
        self.out.push('}');
        self.out
    }

    /// A member whose value is a string.
    pub fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        push_string(&mut self.out, value);
    }

    /// The description: documentation as it stands in the source, made one line.
    pub fn about(&mut self, text: &str) {
        let words: Vec<&str> = text.split_whitespace().collect();
        if !words.is_empty() {
            self.text("description", &words.join(" "));
        }
    }

    /// A member whose value is JSON already.
    pub fn raw(&mut self, key: &str, json: &str) {
        self.key(key);
        self.out.push_str(json);
    }

    /// The members that say: a whole number within bounds.
    pub fn whole(&mut self, least: i128, most: i128) {
        self.text("type", "integer");
        self.raw("minimum", &least.to_string());
        self.raw("maximum", &most.to_string());
    }

    /// A member that is an object in turn.
    pub fn nested(&mut self, key: &str, members: impl FnOnce(&mut Self)) {
        self.key(key);
        self.object(members);
    }

    /// A member that is a list of strings.
    pub fn texts(&mut self, key: &str, values: &[&str]) {
        self.key(key);
        self.out.push('[');
        for (index, value) in values.iter().enumerate() {
            if index > 0 {
                self.out.push(',');
            }
            push_string(&mut self.out, value);
        }
        self.out.push(']');
    }

    /// The members that say: one of these words, each with what it means.
    pub fn words(&mut self, words: &[(&str, &str)]) {
        self.key("oneOf");
        self.out.push('[');
        for (index, (word, about)) in words.iter().enumerate() {
            if index > 0 {
                self.out.push(',');
            }
            self.object(|choice| {
                choice.text("const", word);
                choice.about(about);
            });
        }
        self.out.push(']');
        self.empty = false;
    }

    fn object(&mut self, members: impl FnOnce(&mut Self)) {
        self.out.push('{');
        self.empty = true;
        members(self);
        self.out.push('}');
        self.empty = false;
    }

    fn key(&mut self, key: &str) {
        if !self.empty {
            self.out.push(',');
        }
        self.empty = false;
        push_string(&mut self.out, key);
        self.out.push(':');
    }
}

/// RFC 8259 §7.
fn push_string(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            control if u32::from(control) < 0x20 => {
                let hex = |digit: u32| char::from_digit(digit & 0xf, 16).unwrap_or('0');
                let code = u32::from(control);
                out.push_str("\\u00");
                out.push(hex(code >> 4));
                out.push(hex(code));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}
