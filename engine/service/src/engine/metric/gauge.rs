//! What is looked at with each scrape: who lives, and what they cost.
//!
//! Invariant: looking changes nothing. Where the database cannot be read its figures are missing, not zero, and
//! `brood_scrape_errors` says so.

use std::collections::BTreeMap;
use std::fmt;

use brood_store::{Census, MachineKind, SnapshotCensus};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Unit;

use super::super::now;
use super::page::{About, NONE, Page, about};
use super::{Engine, TenantLabels, hook, usage};

/// The collector.
pub(super) struct Gauges {
    pub(super) engine: Engine,
    pub(super) tenants: TenantLabels,
}

impl fmt::Debug for Gauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gauges").finish_non_exhaustive()
    }
}

impl Collector for Gauges {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page::new(encoder);
        let inner = &self.engine.inner;
        let census = inner.store.read(|read| read.census());
        let usage = inner.store.read(|read| read.usage_state());
        let snapshots = inner.store.read(|read| read.snapshot_census());
        let is_lacking = census.is_err() || usage.is_err() || snapshots.is_err();
        let errors = f64::from(u8::from(is_lacking));
        page.gauge(
            about(
                "scrape_errors",
                "1 where this scrape could not read the database",
            ),
            [(NONE, errors)],
        )?;
        if let Ok(census) = &census {
            self.machines(&mut page, census)?;
        }
        if let Ok(snapshots) = &snapshots {
            self.snapshots(&mut page, snapshots)?;
        }
        if let Ok(usage) = &usage {
            let is_billed = self.engine.biller().is_some();
            usage::write(usage, now(), is_billed, &mut page)?;
        }
        self.memory(&mut page)?;
        let waiting = inner.line.all_waiting() as f64;
        page.gauge(
            about(
                "forks_waiting",
                "Requests to fork that stand in line until there is room, as a policy has it",
            ),
            [(NONE, waiting)],
        )?;
        hook::write(&self.engine.bound(), &mut page)?;
        let events = u64::try_from(*inner.store.last_event().borrow()).unwrap_or(0);
        page.counter(
            about(
                "events",
                "Events that were reported since the database was made",
            ),
            [(NONE, events)],
        )?;
        let bytes = inner.store.file_bytes() as f64;
        let size = About {
            unit: Some(Unit::Bytes),
            ..about("store_file", "Size of the database and of its log")
        };
        page.gauge(size, [(NONE, bytes)])
    }
}

impl Gauges {
    fn machines(&self, page: &mut Page<'_>, census: &[Census]) -> fmt::Result {
        let (mut counts, mut of_tenant) = (BTreeMap::new(), BTreeMap::new());
        for (kind, state) in [
            ("machine", "running"),
            ("machine", "paused"),
            ("machine", "hibernated"),
            ("checkpoint", "frozen"),
        ] {
            counts.insert((kind, state), 0.0);
        }
        let (mut memory, mut vcpus) = (0.0, 0.0);
        for row in census {
            let count = row.count as f64;
            *counts.entry((&row.kind, &row.state)).or_default() += count;
            *of_tenant.entry(row.tenant.as_str()).or_insert(0.0) += count;
            if row.kind == "machine" && row.state != "hibernated" {
                memory += row.memory_mib as f64 * f64::from(1 << 20);
                vcpus += row.vcpu_milli as f64 / 1000.0;
            }
        }
        let counts = counts
            .into_iter()
            .map(|((kind, state), count)| ([("kind", kind), ("state", state)], count));
        page.gauge(
            about("machines", "Machines and checkpoints that are alive"),
            counts,
        )?;
        let given = About {
            unit: Some(Unit::Bytes),
            ..about(
                "machines_memory_given",
                "Guest memory that machines may use together",
            )
        };
        page.gauge(given, [(NONE, memory)])?;
        page.gauge(
            about("machines_vcpus_given", "vCPUs that machines have together"),
            [(NONE, vcpus)],
        )?;
        if self.tenants == TenantLabels::Together {
            return Ok(());
        }
        let each = of_tenant
            .into_iter()
            .map(|(tenant, count)| ([("tenant", tenant)], count));
        page.gauge(
            about(
                "tenant_machines",
                "Machines and checkpoints of a tenant that are alive",
            ),
            each,
        )
    }

    fn snapshots(&self, page: &mut Page<'_>, census: &[SnapshotCensus]) -> fmt::Result {
        let (mut count, mut bytes) = (0.0, 0.0);
        for row in census {
            count += row.count as f64;
            bytes += row.bytes as f64;
        }
        page.gauge(
            about(
                "snapshots",
                "Snapshots on disk, with those that machines are hibernated in",
            ),
            [(NONE, count)],
        )?;
        let size = About {
            unit: Some(Unit::Bytes),
            ..about(
                "snapshots_whole",
                "What snapshots would take on disk if nothing of them were shared",
            )
        };
        page.gauge(size, [(NONE, bytes)])?;
        let on_disk = About {
            unit: Some(Unit::Bytes),
            ..about("snapshots_disk", "What snapshots take on disk together")
        };
        // What cannot be looked at counts nothing, as with the database.
        let taken = self.engine.inner.host.snapshots().disk_bytes().unwrap_or(0);
        page.gauge(on_disk, [(NONE, taken as f64)])?;
        if self.tenants == TenantLabels::Together {
            return Ok(());
        }
        let each = census
            .iter()
            .map(|row| ([("tenant", row.tenant.as_str())], row.count as f64));
        page.gauge(about("tenant_snapshots", "Snapshots of a tenant"), each)
    }

    fn memory(&self, page: &mut Page<'_>) -> fmt::Result {
        let inner = &self.engine.inner;
        let (templates, warm) = inner.templates.cells();
        let sealed = templates.len() as f64;
        page.gauge(
            about(
                "templates_sealed",
                "Templates that are booted and sealed, ready to be claimed",
            ),
            [(NONE, sealed)],
        )?;
        page.gauge(
            about(
                "warm_pool_machines",
                "Warm daughters that wait to be claimed",
            ),
            [(NONE, warm.len() as f64)],
        )?;
        page.gauge(
            about(
                "warm_pool_wanted_machines",
                "Warm daughters that pools are filled up to",
            ),
            [(NONE, sealed * super::super::template::POOL as f64)],
        )?;
        let alive: Vec<_> = self.engine.metered().values().cloned().collect();
        let of = |kind: MachineKind| {
            let found = alive.iter().filter(|one| one.kind == kind);
            (kind.as_str(), found.map(|one| one.pid).collect())
        };
        let cells = [
            of(MachineKind::Machine),
            of(MachineKind::Checkpoint),
            ("template", templates),
            ("warm", warm),
        ];
        let sums = inner.costs.sums(&cells);
        let cells = sums
            .iter()
            .map(|(kind, sum)| ([("kind", *kind)], sum.cells as f64));
        page.gauge(
            about(
                "cells",
                "Processes of microVMs, frozen points, templates and warm daughters, whose memory is counted",
            ),
            cells,
        )?;
        let bytes = |kib: u64| kib as f64 * 1024.0;
        let private = sums
            .iter()
            .map(|(kind, sum)| ([("kind", *kind)], bytes(sum.private_kib)));
        let memory = |name, help| About {
            unit: Some(Unit::Bytes),
            ..about(name, help)
        };
        page.gauge(
            memory(
                "memory_private",
                "Host memory that cells have alone: what would be free if they ended",
            ),
            private,
        )?;
        let shared = sums.iter().map(|(kind, sum)| {
            let shared = sum.pss_kib.saturating_sub(sum.private_kib);
            ([("kind", *kind)], bytes(shared))
        });
        page.gauge(
            memory(
                "memory_shared",
                "Host memory that cells have in common, each page counted once over all that share it",
            ),
            shared,
        )
    }
}
