//! Usage and the ledger.

use std::io::Read;

use brood_api::OperationId as Id;
use brood_api::usage::{
    Balance, ChainCheck, Corrected, CorrectionSpec, Credit, CreditSpec, DeadBatches, PutBack,
    PutBackSpec, Rated, ReplaySpec, Replayed, UsageFormat, UsageQuery, UsageRows, UsageSummary,
};

use crate::ask::Ask;
use crate::{Client, ClientError};

fn ask(query: &UsageQuery, format: UsageFormat) -> Ask {
    let format = match format {
        UsageFormat::Summary => "summary",
        UsageFormat::Ndjson => "ndjson",
        UsageFormat::Csv => "csv",
    };
    let rows = query.rows.map(|rows| match rows {
        UsageRows::Records => "records",
        UsageRows::Lines => "lines",
    });
    Ask::to(Id::ShowUsage)
        .query("format", Some(format))
        .query("rows", rows)
        .query("period", query.period.as_ref())
        .query("tenant", query.tenant.as_ref())
        .query("project", query.project.as_ref())
        .query("lineage", query.lineage)
        .query("template", query.template)
        .query("machine", query.machine)
        .query("label", query.label.as_ref())
        .query("by", query.by.as_ref())
        .query("after", query.after)
}

impl Client {
    /// What usage of a month comes to.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn show_usage(&self, query: &UsageQuery) -> Result<UsageSummary, ClientError> {
        self.call(ask(query, UsageFormat::Summary))
    }

    /// Usage line by line, as text in the format that the query names, NDJSON if it names none with lines.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn read_usage(&self, query: &UsageQuery) -> Result<impl Read + use<>, ClientError> {
        let (format, media) = match query.format {
            Some(UsageFormat::Csv) => (UsageFormat::Csv, "text/csv"),
            _ => (UsageFormat::Ndjson, "application/x-ndjson"),
        };
        let response = self.send(ask(query, format).accept(media))?;
        Ok(response.into_body().into_reader())
    }

    /// Looks through all usage records, for an operator.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn check_usage(&self) -> Result<ChainCheck, ClientError> {
        self.call(Ask::to(Id::CheckUsage))
    }

    /// Puts a record right, for an operator.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn correct_usage(&self, spec: &CorrectionSpec) -> Result<Corrected, ClientError> {
        self.call(Ask::to(Id::CorrectUsage).json(spec)?)
    }

    /// Has all usage rated that is due, for an operator.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn rate_usage(&self) -> Result<Rated, ClientError> {
        self.call(Ask::to(Id::RateUsage))
    }

    /// Has a month rated once more, for an operator.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn replay_usage(&self, period: &str) -> Result<Replayed, ClientError> {
        let spec = ReplaySpec {
            period: period.to_owned(),
        };
        self.call(Ask::to(Id::ReplayUsage).json(&spec)?)
    }

    /// Batches that wait for an operator, who asks.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn list_dead_batches(&self) -> Result<DeadBatches, ClientError> {
        self.call(Ask::to(Id::ListDeadBatches))
    }

    /// Puts one of them back, or all.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn put_back_batches(&self, batch: Option<i64>) -> Result<PutBack, ClientError> {
        self.call(Ask::to(Id::PutBackBatches).json(&PutBackSpec { batch })?)
    }

    /// Posts a credit to a tenant under a key of its own, for an operator.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn post_credit(
        &self,
        tenant: &str,
        key: &str,
        spec: &CreditSpec,
    ) -> Result<Credit, ClientError> {
        let ask = Ask::to(Id::PostCredit).at(tenant).once(Some(key));
        self.call(ask.json(spec)?)
    }

    /// What a tenant has paid in advance, has spent and has left.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn show_balance(&self, tenant: &str) -> Result<Balance, ClientError> {
        self.call(Ask::to(Id::ShowBalance).at(tenant))
    }
}
