//! What is looked at: the server itself, its document, kinds of problems, decisions.

use brood_api::info::{Health, Info};
use brood_api::policy::{Bindings, Decisions};
use brood_api::{Code, OperationId as Id};
use brood_units::IntentId;
use serde_json::Value;

use crate::ask::Ask;
use crate::{Client, ClientError};

impl Client {
    /// Who is bound to which hook, for an operator.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn list_policies(&self) -> Result<Bindings, ClientError> {
        self.call(Ask::to(Id::ListPolicies))
    }

    /// Whether the server lives.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn live(&self) -> Result<Health, ClientError> {
        self.call(Ask::to(Id::Live))
    }

    /// Whether the server can be asked.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn ready(&self) -> Result<Health, ClientError> {
        self.call(Ask::to(Id::Ready))
    }

    /// What the server is, and what the key allows.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn info(&self) -> Result<Info, ClientError> {
        self.call(Ask::to(Id::Info))
    }

    /// The OpenAPI document.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn document(&self) -> Result<Value, ClientError> {
        self.call(Ask::to(Id::Document))
    }

    /// All kinds of problems that the server knows, which may be more than this client does.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn list_problems(&self) -> Result<Value, ClientError> {
        self.call(Ask::to(Id::ListProblems))
    }

    /// A kind of problem.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn show_problem(&self, code: Code) -> Result<Value, ClientError> {
        self.call(Ask::to(Id::ShowProblem).at(code))
    }

    /// What policies said about a request.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn decisions(&self, intent: IntentId) -> Result<Decisions, ClientError> {
        self.call(Ask::to(Id::Decisions).at(intent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operation_of_the_table_has_a_method() {
        let sources = [
            include_str!("event.rs"),
            include_str!("exec.rs"),
            include_str!("file.rs"),
            include_str!("key.rs"),
            include_str!("look.rs"),
            include_str!("machine.rs"),
            include_str!("secret.rs"),
            include_str!("template.rs"),
            include_str!("usage.rs"),
            include_str!("terminal.rs"),
        ];
        // Text for others than this client: what Prometheus scrapes, the page and its parts.
        let others = [
            Id::Metrics,
            Id::Console,
            Id::ConsoleScript,
            Id::ConsoleStyle,
        ];
        for id in Id::ALL.iter().filter(|id| !others.contains(id)) {
            // As the methods write it; here it is never written so.
            let words = format!("Id::{id:?}");
            let asked = |source: &&str| {
                let words = source.split(&words).skip(1);
                words
                    .clone()
                    .any(|rest| !rest.starts_with(char::is_alphanumeric))
            };
            assert!(sources.iter().any(asked), "{id:?}");
        }
    }
}
