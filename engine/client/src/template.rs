//! Templates, and machines made of them.

use brood_api::fork::{ForkAnswer, ForkSpec};
use brood_api::template::{Template, TemplateSpec};
use brood_api::{ListQuery, OperationId as Id, Page};

use crate::ask::Ask;
use crate::{Client, ClientError};

impl Client {
    /// A page of templates: the tenant's own and public ones.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn list_templates(&self, query: &ListQuery) -> Result<Page<Template>, ClientError> {
        let ask = Ask::to(Id::ListTemplates);
        self.call(
            ask.query("limit", query.limit)
                .query("cursor", query.cursor),
        )
    }

    /// A template, by its name or its id.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn show_template(&self, which: &str) -> Result<Template, ClientError> {
        self.call(Ask::to(Id::ShowTemplate).at(which))
    }

    /// Makes a template; under the same `once` once.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn create_template(
        &self,
        spec: &TemplateSpec,
        once: Option<&str>,
    ) -> Result<Template, ClientError> {
        self.call(Ask::to(Id::CreateTemplate).json(spec)?.once(once))
    }

    /// Removes a template; its machines stay.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn remove_template(&self, which: &str) -> Result<(), ClientError> {
        self.done(Ask::to(Id::RemoveTemplate).at(which))
    }

    /// Makes machines of a template; under the same `once` once.
    ///
    /// # Errors
    /// As all methods: the server cannot be reached, is not understood, or refuses.
    pub fn fork_template(
        &self,
        which: &str,
        spec: &ForkSpec,
        once: Option<&str>,
    ) -> Result<ForkAnswer, ClientError> {
        self.call(Ask::to(Id::ForkTemplate).at(which).json(spec)?.once(once))
    }
}
