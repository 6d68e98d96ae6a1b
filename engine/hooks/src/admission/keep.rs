//! Whether verdicts keep to what was asked.
//!
//! Invariant: a verdict that passes can be committed as it is: it is no wider than its request in any dimension, and no
//! hold of it overflows or gives back what was never taken.

use super::{Deferral, Grant, Hold, Item, Verdict, WhenFull};
use crate::check::{Flaw, Malformed, at_most, in_range, not_wider};
use crate::{Denial, ForkRequest, text};

const MOST_HOLDS: usize = 64;
const MOST_WARNINGS: usize = 16;
/// A queue is a place to wait, not to be forgotten in: one day.
const LONGEST_WAIT_MS: i128 = 86_400_000;

pub(crate) fn keep_to(items: &[Item], verdicts: &[Verdict]) -> Result<(), Malformed> {
    if verdicts.len() != items.len() {
        let (expected, found) = (items.len() as u64, verdicts.len() as u64);
        return Err(Flaw::Length { expected, found }.at("verdicts"));
    }
    for (index, (item, verdict)) in items.iter().zip(verdicts).enumerate() {
        keeps_to(&item.request, verdict)
            .map_err(|flaw| flaw.within(format_args!("verdicts[{index}]")))?;
    }
    Ok(())
}

fn keeps_to(request: &ForkRequest, verdict: &Verdict) -> Result<(), Malformed> {
    match verdict {
        Verdict::Abstain => Ok(()),
        Verdict::Admit(grant) => {
            grant_keeps_to(request, grant).map_err(|flaw| flaw.within("grant"))
        }
        Verdict::Deny(denial) => denial_is_right(denial),
        Verdict::Queue(deferral) => deferral_is_right(deferral),
    }
}

fn grant_keeps_to(request: &ForkRequest, grant: &Grant) -> Result<(), Malformed> {
    not_wider("count", request.count.into(), grant.count.into())?;
    in_range(
        "count",
        request.min_count.into()..=request.count.into(),
        grant.count.into(),
    )?;
    if let Some(shape) = &grant.shape {
        text::narrows(&request.shape, shape, request.mother.is_live())
            .map_err(|flaw| flaw.within("shape"))?;
    }
    if let Some(ttl) = grant.ttl_ms {
        in_range("ttl-ms", 1..=u64::MAX.into(), ttl.into())?;
        not_wider(
            "ttl-ms",
            request.ttl_ms.unwrap_or(u64::MAX).into(),
            ttl.into(),
        )?;
    }
    at_most("holds", MOST_HOLDS, grant.holds.len())?;
    for (index, hold) in grant.holds.iter().enumerate() {
        let place = format!("holds[{index}]");
        hold_is_right(request, hold).map_err(|flaw| flaw.within(&place))?;
        if grant
            .holds
            .iter()
            .take(index)
            .any(|earlier| earlier.key == hold.key)
        {
            return Err(Flaw::Duplicate {
                name: hold.key.clone(),
            }
            .at(place));
        }
    }
    match &grant.when_full {
        WhenFull::Deny(denial) => denial_is_right(denial),
        WhenFull::Queue(deferral) => deferral_is_right(deferral),
    }
    .map_err(|flaw| flaw.within("when-full"))?;
    text::own_labels("add-labels", &grant.add_labels)?;
    for (label, value) in &grant.add_labels {
        let other = |(key, was): &&(String, String)| key == label && was != value;
        if request.labels.iter().find(other).is_some() {
            return Err(Flaw::Duplicate {
                name: label.clone(),
            }
            .at("add-labels"));
        }
    }
    at_most("warnings", MOST_WARNINGS, grant.warnings.len())?;
    grant
        .warnings
        .iter()
        .try_for_each(|warning| text::words("warnings", warning))
}

fn hold_is_right(request: &ForkRequest, hold: &Hold) -> Result<(), Malformed> {
    text::name("key", &hold.key)?;
    let natural = 0..=i128::from(i64::MAX);
    in_range("per-request", natural.clone(), hold.per_request.into())?;
    in_range("per-daughter", natural.clone(), hold.per_daughter.into())?;
    in_range("limit", natural, hold.limit.into())?;
    if let Some(lasts) = hold.lasts_ms {
        in_range("lasts-ms", 1..=u64::MAX.into(), lasts.into())?;
    }
    let most = i64::from(request.count).checked_mul(hold.per_daughter);
    match most.and_then(|most| most.checked_add(hold.per_request)) {
        Some(_) => Ok(()),
        None => Err(Flaw::Overflow.at("per-daughter")),
    }
}

pub(crate) fn denial_is_right(denial: &Denial) -> Result<(), Malformed> {
    text::key("code", &denial.code)?;
    text::words("message", &denial.message)
}

fn deferral_is_right(deferral: &Deferral) -> Result<(), Malformed> {
    text::name("queue", &deferral.queue)?;
    in_range(
        "max-wait-ms",
        1..=LONGEST_WAIT_MS,
        deferral.max_wait_ms.into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Origin, Resources};

    fn request() -> ForkRequest {
        ForkRequest {
            count: 8,
            min_count: 2,
            shape: Resources {
                vcpu_milli: 1000,
                memory_mib: 512,
                disk_mib: 100,
                more: vec![],
            },
            ttl_ms: Some(60_000),
            labels: vec![("team".into(), "a".into())],
            ..ForkRequest::default()
        }
    }

    fn grant() -> Grant {
        Grant {
            count: 4,
            shape: None,
            ttl_ms: Some(1000),
            holds: vec![],
            when_full: WhenFull::Deny(Denial {
                code: "quota".into(),
                message: "full".into(),
                retry_after_ms: None,
            }),
            add_labels: vec![],
            warnings: vec![],
        }
    }

    fn flaw_of(change: impl FnOnce(&mut Grant)) -> Option<String> {
        let mut grant = grant();
        change(&mut grant);
        let item = Item {
            request: request(),
            ..Item::default()
        };
        let wrong = keep_to(&[item], &[Verdict::Admit(grant)]).err()?;
        Some(wrong.to_string())
    }

    fn hold(per_request: i64, per_daughter: i64, limit: i64) -> Hold {
        Hold {
            key: "live".into(),
            per_request,
            per_daughter,
            limit,
            lasts_ms: None,
        }
    }

    #[test]
    fn grant_wider_than_the_ask_is_malformed_in_every_dimension() {
        assert_eq!(flaw_of(|_| ()), None);
        let wider = Some("verdicts[0].grant.count: 9 is wider than the 8 that was asked".into());
        assert_eq!(flaw_of(|grant| grant.count = 9), wider);
        assert!(
            flaw_of(|grant| grant.count = 1).is_some(),
            "below min-count"
        );
        assert!(flaw_of(|grant| grant.ttl_ms = Some(60_001)).is_some());
        assert!(flaw_of(|grant| grant.ttl_ms = Some(0)).is_some());
        let shapes: [fn(&mut Resources); 5] = [
            |shape| shape.vcpu_milli += 1,
            |shape| shape.memory_mib += 1,
            |shape| shape.disk_mib += 1,
            |shape| shape.memory_mib = 0,
            |shape| shape.more.push(("gpu".into(), 1)),
        ];
        for widen in shapes {
            let mut shape = request().shape;
            widen(&mut shape);
            assert!(
                flaw_of(|grant| grant.shape = Some(shape.clone())).is_some(),
                "{shape:?}"
            );
        }
    }

    #[test]
    fn live_fork_cannot_be_given_less_memory_than_it_inherits() {
        let mut item = Item {
            request: request(),
            ..Item::default()
        };
        let shape = Resources {
            memory_mib: 256,
            ..request().shape
        };
        let narrow = [Verdict::Admit(Grant {
            shape: Some(shape),
            ..grant()
        })];
        assert!(keep_to(std::slice::from_ref(&item), &narrow).is_ok());
        item.request.mother = Origin {
            kind: "running".into(),
            ..Origin::default()
        };
        assert!(keep_to(&[item], &narrow).is_err());
    }

    #[test]
    fn hold_that_overflows_or_gives_back_is_malformed() {
        assert_eq!(flaw_of(|grant| grant.holds = vec![hold(0, 1, 8)]), None);
        for wrong in [
            hold(-1, 1, 8),
            hold(0, -1, 8),
            hold(0, 1, -1),
            hold(0, i64::MAX / 4, 8),
        ] {
            assert!(
                flaw_of(|grant| grant.holds = vec![wrong.clone()]).is_some(),
                "{wrong:?}"
            );
        }
        assert!(flaw_of(|grant| grant.holds = vec![hold(0, 1, 8), hold(0, 2, 8)]).is_some());
    }

    #[test]
    fn label_of_the_engine_or_of_the_caller_cannot_be_overwritten() {
        let add = |key: &str, value: &str| {
            flaw_of(|grant| grant.add_labels = vec![(key.into(), value.into())])
        };
        assert_eq!(add("team", "a"), None);
        assert!(add("team", "b").is_some());
        assert!(add("brood.node", "1").is_some());
        assert!(add("Team", "a").is_some());
    }

    #[test]
    fn as_many_verdicts_as_items_or_none_counts() {
        let items = vec![Item::default(); 2];
        assert!(keep_to(&items, &[Verdict::Abstain]).is_err());
        assert!(keep_to(&items, &[const { Verdict::Abstain }; 3]).is_err());
        assert!(keep_to(&items, &[const { Verdict::Abstain }; 2]).is_ok());
    }
}
