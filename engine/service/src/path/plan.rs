//! The mutation plan, expanded into a stamp for each daughter before any of them exists.
//!
//! Invariant: every stamp is complete and checked before the fork, for all daughters or for none. The caller's variables
//! and files come first and policy wins. What a plan asks and a stamp cannot do fails the fork: to skip it would loosen
//! what the policy asked for.

use std::collections::BTreeMap;

use brood_agent_proto::fork::StampFile;
use brood_agent_proto::frame::MAX_FRAME;
use brood_hooks::mutation::{
    Brief, DaughterPlan, Network, PlacedRun, Planned, SecretTarget, combine,
};
use brood_hooks::{Daughter, Id128, Mutation, Resources, Span};
use brood_units::MachineId;

use super::secret::{Resolver, Safe, StampSecrets};
use super::{Course, Panels, Placed, Stopped, Why};
use crate::decision::{Decision, decisions};
use crate::fork::IdentitySpec;
use crate::hold::Held;

/// Longest host name that Linux takes, bytes (HOST_NAME_MAX, hostname(7)).
const LONGEST_HOSTNAME: usize = 64;
/// Most bytes of one stamp's variables and files: it travels in one frame, with its other fields.
const MOST_BYTES: usize = MAX_FRAME - 16 * 1024;

/// What one daughter will be.
#[derive(Clone, Debug)]
pub struct Stamp {
    /// Her id.
    pub id: MachineId,
    /// What her agent is told.
    pub identity: IdentitySpec,
    /// What she may use.
    pub shape: Resources,
    /// How long she lives, milliseconds.
    pub ttl_ms: Option<u64>,
    /// Her labels.
    pub labels: BTreeMap<String, String>,
    /// What becomes of secrets; they join her identity at her stamp.
    pub secrets: StampSecrets,
}

/// A request with a stamp for each of its daughters.
#[derive(Debug)]
#[must_use = "units are held for it"]
pub struct Stamps {
    pub(super) course: Course,
    pub(super) stamps: Vec<Stamp>,
}

impl Placed {
    /// Asks every mutation policy, in one call each, and expands what they plan. Daughter `i` gets the id `first_id + i`,
    /// and secrets out of `safe`.
    ///
    /// # Errors
    /// A policy refuses or fails, two of them disagree, a secret is not there, or some daughter's stamp cannot be made.
    pub async fn plan(
        self,
        panels: &Panels,
        first_id: MachineId,
        safe: Safe<'_>,
    ) -> Result<Stamps, Box<Stopped>> {
        let Self { mut course, runs } = self;
        let first_id = Id128::from(first_id);
        let brief = Brief {
            request: course.request.clone(),
            daughters: Span {
                first: 0,
                count: course.request.count,
            },
            first_id,
            placed: runs,
        };
        let panel = panels.mutation.as_ref();
        let said = panel.hear(course.now, brief.clone()).await;
        let decisions = decisions::<Mutation>(panel, &course.request.who.tenant, &said);
        course.decisions.extend(decisions);
        let planned = match combine(&brief, &said) {
            Ok(planned) => planned,
            Err(error) => return Err(course.stopped(error)),
        };
        course.warnings.extend(planned.warnings.iter().cloned());
        match stamps(&course, &brief, &planned, safe) {
            Ok(stamps) => Ok(Stamps { course, stamps }),
            Err(why) => Err(course.stopped(*why)),
        }
    }
}

impl Stamps {
    /// Each daughter's, in order.
    pub fn stamps(&self) -> &[Stamp] {
        &self.stamps
    }

    /// What is held for them.
    pub fn held(&self) -> Option<&Held> {
        self.course.held.as_ref()
    }

    /// What was said until now.
    pub fn decisions(&self) -> &[Decision] {
        &self.course.decisions
    }

    /// What should have been done cannot be done.
    pub fn fail(self, error: anyhow::Error) -> Box<Stopped> {
        self.stop(Why::Fork(error))
    }

    /// The same, for a reason that has a name.
    pub fn stop(self, why: Why) -> Box<Stopped> {
        self.course.stopped(why)
    }

    /// The request goes no further after all; what was held for it is in the answer.
    pub fn give_up(self) -> Option<Held> {
        self.course.held
    }

    /// Of policies.
    pub fn warnings(&self) -> &[String] {
        &self.course.warnings
    }
}

fn stamps(
    course: &Course,
    brief: &Brief,
    planned: &Planned,
    safe: Safe<'_>,
) -> Result<Vec<Stamp>, Box<Why>> {
    let mut resolver = Resolver::new(safe, course.secrets);
    let indices = 0..brief.daughters.count;
    let each = indices.map(|index| {
        let daughter = Daughter {
            index,
            id: brief.first_id.plus(index),
            node: node_of(&brief.placed, index),
            ip: None,
            mac: None,
        };
        let flaw = |flaw: String| {
            let daughter = index;
            Box::new(Why::Plan { daughter, flaw })
        };
        let plan = planned
            .of(&daughter)
            .unwrap_or_else(|| Ok(DaughterPlan::default()))
            .map_err(|malformed| flaw(malformed.to_string()))?;
        let mut secrets = plan.secrets.clone();
        // As with variables and files: policy wins over the caller.
        for asked in &course.give {
            if secrets.iter().all(|planned| planned.target != asked.target) {
                secrets.push(asked.clone());
            }
        }
        let mut stamp = stamp(course, &daughter, plan).map_err(flaw)?;
        let identity = &stamp.identity;
        let resolved = resolver.resolve(&secrets, |target| is_taken(identity, target));
        stamp.secrets = resolved.map_err(|error| Box::new(error.into()))?;
        fits_a_frame(&stamp).map_err(flaw)?;
        Ok(stamp)
    });
    each.collect()
}

fn node_of(placed: &[PlacedRun], index: u32) -> u32 {
    let run = placed.iter().find(|run| run.daughters.contains(index));
    run.map_or(0, |run| run.node)
}

fn stamp(course: &Course, daughter: &Daughter, plan: DaughterPlan) -> Result<Stamp, String> {
    let request = &course.request;
    is_possible(&plan)?;
    let hostname = plan
        .network
        .hostname
        .unwrap_or_else(|| format!("d{}", daughter.index));
    if hostname.len() > LONGEST_HOSTNAME {
        return Err(format!(
            "the host name {hostname} is longer than the {LONGEST_HOSTNAME} bytes that Linux takes"
        ));
    }
    let mut env = course.env.clone();
    env.extend(plan.env);
    let wrong = |(name, value): &(&String, &String)| {
        name.is_empty() || name.contains(['=', '\0']) || value.contains('\0')
    };
    if let Some((name, _)) = env.iter().find(wrong) {
        let name = name.escape_debug();
        return Err(format!(
            "'{name}' is no variable: no '=' and NUL in its name, no NUL in its value"
        ));
    }
    let mut files: BTreeMap<&str, StampFile> = BTreeMap::new();
    files.extend(
        course
            .files
            .iter()
            .map(|file| (file.path.as_str(), file.clone())),
    );
    for (path, (mode, bytes)) in &plan.files {
        let file = StampFile {
            path: path.clone(),
            mode: *mode,
            bytes: bytes.clone().into(),
        };
        files.insert(path, file);
    }
    let mut labels: BTreeMap<_, _> = request.labels.iter().cloned().collect();
    labels.extend(plan.labels);
    Ok(Stamp {
        id: daughter.id.into(),
        identity: IdentitySpec {
            id: Some(daughter.id.into()),
            hostname,
            env: env.into_iter().collect(),
            files: files.into_values().collect(),
            entropy: plan.entropy_context.concat(),
            ..IdentitySpec::default()
        },
        shape: match plan.limits {
            Some(limits) => request.shape.narrowest(&limits),
            None => request.shape.clone(),
        },
        ttl_ms: match (request.ttl_ms, plan.ttl_ms) {
            (Some(granted), Some(planned)) => Some(granted.min(planned)),
            (granted, planned) => granted.or(planned),
        },
        labels,
        secrets: StampSecrets::default(),
    })
}

fn is_taken(identity: &IdentitySpec, target: &SecretTarget) -> bool {
    match target {
        SecretTarget::Env(name) => identity.env.iter().any(|(known, _)| known == name),
        SecretTarget::File(path) => identity.files.iter().any(|file| file.path == *path),
    }
}

fn fits_a_frame(stamp: &Stamp) -> Result<(), String> {
    let identity = &stamp.identity;
    let env = identity.env.iter();
    let env = env.map(|(name, value)| name.len() + value.len());
    let files = identity.files.iter();
    let files = files.map(|file| file.path.len() + file.bytes.0.len());
    let carried = env.chain(files).sum::<usize>() + stamp.secrets.bytes();
    if carried <= MOST_BYTES {
        return Ok(());
    }
    Err(format!(
        "its variables, files and secrets are {carried} bytes together, {MOST_BYTES} at most: write large files after the fork"
    ))
}

/// Whether a stamp can do what the plan asks.
fn is_possible(plan: &DaughterPlan) -> Result<(), String> {
    let Network {
        profile,
        hostname: _,
        egress_allow,
        rate_kbps,
    } = &plan.network;
    let asks = [
        ("a variable to be removed", !plan.unset_env.is_empty()),
        ("a file to be removed", !plan.remove_files.is_empty()),
        (
            "a network, and machines have none",
            profile.is_some() || egress_allow.is_some() || rate_kbps.is_some(),
        ),
    ];
    match asks.into_iter().find(|(_, asked)| *asked) {
        Some((what, _)) => Err(format!("it asks for {what}, which a stamp cannot do")),
        None => Ok(()),
    }
}
