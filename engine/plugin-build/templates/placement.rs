use brood_plugin::placement::{Answer, Bid, Candidate, Question, Ranking};
use brood_plugin::settings::{Diagnostics, Prepared, prepared};
use brood_plugin::types::HookError;

brood_plugin::settings! {
    /// Where daughters go.
    pub struct Settings {
        /// No daughters where more of the CPU is in use, 1/1000.
        max_cpu_load: u16 = 900,
    }
}

/// The plugin.
#[derive(Debug)]
pub struct Policy;

impl brood_plugin::Plugin for Policy {
    const NAME: &'static str = env!("CARGO_PKG_NAME");
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    type Settings = Settings;

    // Runs when the settings change. What the hook needs is stored, so that no call parses JSON.
    fn prepare(settings: &Settings, prepared: &mut Prepared, _wrong: &mut Diagnostics) {
        prepared.put("max-cpu-load", &settings.max_cpu_load);
    }
}

impl brood_plugin::Placement for Policy {
    fn rank(question: Question) -> Result<Answer, HookError> {
        let most: u16 = prepared("max-cpu-load")?;
        let wanted = question.wanted.count;
        let rankings = question
            .candidates
            .iter()
            .map(|candidate| rank(most, wanted, candidate));
        Ok(Answer {
            rankings: rankings.collect(),
            reasons: vec![format!("more than {most}/1000 of the CPU are in use")],
        })
    }
}

/// The idler, the better: scores go from 0 to 10000.
fn rank(most: u16, wanted: u32, candidate: &Candidate) -> Ranking {
    if candidate.cpu_load > most {
        return Ranking::Reject(0);
    }
    Ranking::Bid(Bid {
        score: 10 * 1000_u16.saturating_sub(candidate.cpu_load),
        at_most: wanted,
    })
}

brood_plugin::export!(Policy: placement);

#[cfg(test)]
mod tests {
    use brood_plugin::Placement;
    use brood_plugin::testkit::{Host, candidate, question};

    use super::*;

    #[test]
    fn idle_candidate_leads_and_a_busy_one_is_refused() {
        let host = Host::with_settings::<Policy>("{}").unwrap();
        let loaded = |cpu_load| Candidate {
            cpu_load,
            ..candidate(0)
        };
        let question = question(2, vec![loaded(0), loaded(900), loaded(901)]);
        let answer = host.call(|| Policy::rank(question)).unwrap();
        let bid = |score| Ranking::Bid(Bid { score, at_most: 2 });
        assert_eq!(
            answer.rankings,
            [bid(10_000), bid(1000), Ranking::Reject(0)]
        );
    }
}
