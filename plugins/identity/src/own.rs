//! The rules for variables of which each daughter has a value of her own.
//!
//! Invariant: one rule for each run of daughters that have the same. A thousand daughters fit well within the default
//! fuel: nothing is made for a daughter whose values are those of the one before her.

use brood_plugin::mutation::{Brief, Patch, Rule};
use brood_plugin::types::{ForkRequest, Span};

use crate::gift::{After, Texts};
use crate::plan::{MOST, filled};

/// Where a variable's value for a daughter comes from.
#[derive(Clone, Copy)]
pub(crate) enum Own<'a> {
    Values(&'a Texts, After),
    /// First and step, which is not 0.
    Numbers(i64, i64),
}

/// The rules for these variables, by name.
pub(crate) fn rules(own: &[(&str, Own<'_>)], brief: &Brief) -> Result<Vec<Rule>, String> {
    let mut rules: Vec<Rule> = Vec::new();
    if own.is_empty() {
        return Ok(rules);
    }
    let Span { first, count } = brief.daughters;
    let mut patches = 0;
    for offset in 0..count {
        let index = first.checked_add(offset);
        let index = index.ok_or("the daughters' indices exceed 32 bits")?;
        if let Some(last) = rules.last_mut()
            && own.iter().all(|(_, own)| own.repeats(index))
        {
            last.daughters.count += 1;
            continue;
        }
        patches += own.len();
        if patches > MOST {
            return Err(format!(
                "{count} daughters with values of their own need more than {MOST} changes"
            ));
        }
        let mut values = Vec::with_capacity(own.len());
        for (name, own) in own {
            let value = own.value(name, index, &brief.request)?;
            values.push(Patch::SetEnv(((*name).to_owned(), value)));
        }
        rules.push(Rule {
            daughters: Span {
                first: index,
                count: 1,
            },
            patches: values,
        });
    }
    Ok(rules)
}

impl Own<'_> {
    /// Whether the daughter with an index has the value of the one before her, who has one.
    fn repeats(self, index: u32) -> bool {
        let Self::Values(list, after) = self else {
            return false;
        };
        let text = |index| list.at(at(list, after, index));
        index.checked_sub(1).and_then(text) == text(index)
    }

    /// The value for the daughter with an index.
    fn value(self, name: &str, index: u32, request: &ForkRequest) -> Result<String, String> {
        match self {
            Self::Numbers(first, step) => {
                let added = i64::from(index).checked_mul(step);
                let number = added.and_then(|added| first.checked_add(added));
                let number =
                    number.ok_or_else(|| format!("{name} of daughter {index} exceeds 64 bits"))?;
                Ok(number.to_string())
            }
            Self::Values(list, after) => {
                let missing = || {
                    format!(
                        "{name} has {} values, and none for daughter {index}",
                        list.len()
                    )
                };
                let text = list.at(at(list, after, index)).ok_or_else(missing)?;
                match list.has_placeholders {
                    true => filled(text, request),
                    false => Ok(text.to_owned()),
                }
            }
        }
    }
}

/// Which of the list a daughter has.
fn at(list: &Texts, after: After, index: u32) -> usize {
    let index = usize::try_from(index).unwrap_or(usize::MAX);
    match after {
        After::Refusal => index,
        After::Beginning => index.checked_rem(list.len()).unwrap_or(0),
        After::Last => index.min(list.len().saturating_sub(1)),
    }
}
