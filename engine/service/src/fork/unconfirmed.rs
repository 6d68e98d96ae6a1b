//! Why a daughter was not handed out, and what to do about it.
//!
//! Invariant: every failure of a conversation with an agent, hostile or broken ones included, has a remedy in words.

use std::fmt;

use brood_agent_proto::frame::FrameError;
use brood_agent_proto::hello::HelloError;
use brood_agent_proto::{AgentError, ClientError};

/// A daughter that did not become a machine. She was killed; unless only her first answer is missing, nothing of her
/// workload ever ran. The mother is not touched.
#[derive(Debug, thiserror::Error)]
#[error(
    "daughter {index} was killed and is not handed out: {step} failed{ending} ({})",
    remedy(source)
)]
pub struct Unconfirmed {
    /// Which one of the fork.
    pub index: u32,
    /// What failed.
    pub step: Step,
    /// How she had ended by herself, if she had.
    pub ending: Ending,
    /// Why.
    pub source: anyhow::Error,
}

/// How a daughter ended before she was killed.
#[derive(Debug)]
pub struct Ending(pub Option<brood_cell::protocol::Ending>);

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(ending) => write!(f, " as she ended: {ending:?}"),
            None => Ok(()),
        }
    }
}

/// The steps from a daughter's first instruction to her first answer, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Writing down who she shall be.
    Identity,
    /// Reaching her agent.
    Connect,
    /// Giving her the identity.
    Stamp,
    /// Reading what the caller wanted to see before her workload runs.
    Look,
    /// Setting her wall clock.
    Clock,
    /// Having her say who she is.
    Confirm,
    /// Letting her workload run.
    Thaw,
    /// Running a first program.
    Answer,
}

impl Step {
    /// All of them, in order.
    pub const ALL: [Self; 8] = [
        Self::Identity,
        Self::Connect,
        Self::Stamp,
        Self::Look,
        Self::Clock,
        Self::Confirm,
        Self::Thaw,
        Self::Answer,
    ];

    /// Its word, for who measures it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Connect => "connect",
            Self::Stamp => "stamp",
            Self::Look => "look",
            Self::Clock => "clock",
            Self::Confirm => "confirm",
            Self::Thaw => "thaw",
            Self::Answer => "answer",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Identity => "drawing her identity",
            Self::Connect => "reaching her agent",
            Self::Stamp => "her stamp",
            Self::Look => "reading a file in her",
            Self::Clock => "setting her wall clock",
            Self::Confirm => "her confirm",
            Self::Thaw => "her thaw",
            Self::Answer => "her first answer",
        })
    }
}

/// A step that failed, while the daughter still exists.
pub(super) struct Failure {
    pub(super) step: Step,
    pub(super) source: anyhow::Error,
}

/// Names the step of an error.
pub(super) fn at<E: Into<anyhow::Error>>(step: Step) -> impl FnOnce(E) -> Failure {
    move |source| Failure {
        step,
        source: source.into(),
    }
}

/// What can be done about a conversation with an agent that failed.
pub(crate) fn remedy(error: &anyhow::Error) -> &'static str {
    match error.downcast_ref() {
        Some(ClientError::Version { .. }) => {
            "this guest's agent belongs to another version of brood: make guest files with this one's `brood prepare` and boot anew"
        }
        Some(ClientError::Hello(HelloError::Magic)) => {
            "something else listens at the agent's port in the guest: end it there, or boot anew with guest files of `brood prepare`"
        }
        Some(ClientError::Agent(AgentError::StampFailed { .. })) => {
            "mend in the mother what the stamp stumbled over, or stamp otherwise, and fork again"
        }
        Some(ClientError::Agent(AgentError::QuiesceRefused { .. })) => {
            "end or unblock the processes named, and fork again"
        }
        Some(ClientError::Frame(FrameError::Length { .. })) => {
            "a message is too long: write files that make the stamp so after the fork; if the stamp was short, do not trust this guest"
        }
        Some(ClientError::Identity { .. }) => {
            "something in the guest changed her identity behind the agent: look at the mother's hooks in /etc/brood/fork.d"
        }
        Some(
            ClientError::Timeout(_)
            | ClientError::Hello(HelloError::Io(_))
            | ClientError::Frame(FrameError::Io(_) | FrameError::Closed),
        ) => {
            "her agent hangs or is gone: look at the guest's console; on an overloaded host fork fewer at once"
        }
        Some(
            ClientError::Frame(FrameError::Garbage { .. })
            | ClientError::Unexpected { .. }
            | ClientError::TooMuch { .. }
            | ClientError::Broken,
        ) => {
            "what answers is broken or no agent of ours: do not trust this guest, boot anew with guest files of `brood prepare`"
        }
        Some(ClientError::Agent(_) | ClientError::Local(_)) | None => {
            "mend the cause named below and fork again"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_daughter_step_and_how_she_ended() {
        let steps = [
            (Step::Identity, "drawing her identity failed"),
            (Step::Connect, "reaching her agent failed"),
            (Step::Stamp, "her stamp failed"),
            (Step::Look, "reading a file in her failed"),
            (Step::Clock, "setting her wall clock failed"),
            (Step::Confirm, "her confirm failed"),
            (Step::Thaw, "her thaw failed"),
            (Step::Answer, "her first answer failed"),
        ];
        for (step, words) in steps {
            let mut unconfirmed = Unconfirmed {
                index: 3,
                step,
                ending: Ending(None),
                source: anyhow::anyhow!("no matter"),
            };
            let text = unconfirmed.to_string();
            assert!(text.contains("daughter 3 was killed"), "{text}");
            assert!(text.contains(&format!("{words} (")), "{text}");
            unconfirmed.ending = Ending(Some(brood_cell::protocol::Ending::PowerOff));
            let text = unconfirmed.to_string();
            assert!(
                text.contains(&format!("{words} as she ended: PowerOff")),
                "{text}"
            );
        }
    }
}
