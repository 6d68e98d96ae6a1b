//! Placement: which of the places that have room the daughters go to.
//!
//! Invariant: policies rank what the engine offers and add nothing to it. Fewer places than daughters lower the count, but
//! not below what the caller takes.

use brood_hooks::placement::{Candidate, Column, PlacementError, Question, Ranks, Run, fill, rank};
use brood_hooks::{Labels, Placement, Span};

use super::{Admitted, Course, Panels, Stopped};
use crate::decision::{Decision, decisions};
use crate::hold::Held;

/// One place that the engine offers.
#[derive(Clone, Debug)]
pub struct Node {
    /// It, as policies see it; its label set is made from `labels`.
    pub candidate: Candidate,
    /// How many daughters of this request fit.
    pub room: u32,
    /// Its labels.
    pub labels: Labels,
}

/// A request whose daughters have their places.
#[derive(Debug)]
#[must_use = "units are held for it"]
pub struct Placed {
    pub(super) course: Course,
    pub(super) runs: Vec<brood_hooks::mutation::PlacedRun>,
}

/// What is allowed to happen as it is, with nobody asked what is to differ.
#[must_use = "units are held for it"]
pub struct Allowed {
    /// Units that are held for it.
    pub held: Option<Held>,
    /// What was said.
    pub decisions: Vec<Decision>,
}

impl Placed {
    /// Of a machine that goes on as who she is: there is no plan to be made.
    pub fn as_she_is(self) -> Allowed {
        Allowed {
            held: self.course.held,
            decisions: self.course.decisions,
        }
    }

    /// How many have a place.
    pub fn daughters(&self) -> u32 {
        self.course.request.count
    }

    /// Goes no further: units to give back.
    pub fn give_up(self) -> Option<Held> {
        self.course.held
    }
}

impl Admitted {
    /// Asks every placement policy, in one call each. A live fork and a checkpoint have one node: the mother's.
    ///
    /// # Errors
    /// A required policy failed, or fewer find a place than the caller takes.
    pub async fn place(self, panels: &Panels, nodes: Vec<Node>) -> Result<Placed, Box<Stopped>> {
        let mut course = self.course;
        let mut question = question(&course, &nodes);
        let room: Vec<u32> = nodes.iter().map(|node| node.room).collect();
        let panel = panels.placement.as_ref();
        let said = panel.hear(course.now, question.clone()).await;
        course.decisions.extend(decisions::<Placement>(
            panel,
            &course.request.who.tenant,
            &said,
        ));
        let placed = match rank(&question, &said) {
            Ok(ranks) => fit(&mut course, &mut question, &ranks, &room),
            Err(error) => Err(Box::new(error)),
        };
        match placed {
            Ok(runs) => {
                course.request.count = question.wanted.count;
                let runs = runs.iter().map(|run| placed_run(run, &nodes)).collect();
                Ok(Placed { course, runs })
            }
            Err(error) => Err(course.stopped(*error)),
        }
    }
}

/// Puts as many daughters onto places as fit, if that is as many as the caller takes.
fn fit(
    course: &mut Course,
    question: &mut Question,
    ranks: &Ranks,
    room: &[u32],
) -> Result<Vec<Run>, Box<PlacementError>> {
    course.warnings.extend(ranks.warnings.iter().cloned());
    let wanted = question.wanted.count;
    let count = fitting(ranks, room).min(wanted);
    if count < course.request.min_count {
        course.warnings.extend(rejections(ranks));
        let unplaced = wanted - count;
        return Err(Box::new(PlacementError::NoRoom { unplaced, wanted }));
    }
    if count < wanted {
        let words = format!("{count} of {wanted} daughters: no place for more");
        course.warnings.push(words);
    }
    question.wanted.count = count;
    fill(question, ranks, room).map_err(Box::new)
}

fn question(course: &Course, nodes: &[Node]) -> Question {
    let candidates = nodes.iter().zip(0..).map(|(node, labelset)| Candidate {
        labelset,
        ..node.candidate.clone()
    });
    Question {
        request: course.request.clone(),
        wanted: Span {
            first: 0,
            count: course.request.count,
        },
        candidates: candidates.collect(),
        columns: vec![Column {
            name: "brood.room".to_owned(),
            values: nodes.iter().map(|node| node.room.into()).collect(),
        }],
        labelsets: nodes.iter().map(|node| node.labels.clone()).collect(),
    }
}

/// How many daughters all usable places take together.
fn fitting(ranks: &Ranks, room: &[u32]) -> u32 {
    let each = ranks.usable.iter().map(|ranked| {
        let room = room.get(ranked.candidate).copied().unwrap_or(0);
        room.min(ranked.at_most)
    });
    each.fold(0, u32::saturating_add)
}

fn rejections(ranks: &Ranks) -> impl Iterator<Item = String> {
    let words = ranks.rejected.iter();
    words.map(|(candidate, reason)| format!("place {candidate} is out: {reason}"))
}

fn placed_run(run: &Run, nodes: &[Node]) -> brood_hooks::mutation::PlacedRun {
    let (node, numa) = nodes
        .get(run.candidate)
        .map_or((0, 0), |node| (node.candidate.node, node.candidate.numa));
    brood_hooks::mutation::PlacedRun {
        daughters: run.daughters,
        node,
        numa,
    }
}
