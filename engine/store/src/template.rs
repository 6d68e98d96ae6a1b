//! What machines are made of.

use brood_units::{MachineId, Timestamp};
use rusqlite::{OptionalExtension, Row};
use serde::{Deserialize, Serialize};

use crate::machine_list::Page;
use crate::row::{bytes, get, number, time, word};
use crate::{Read, StoreError, Write};

/// Who may make machines of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Visibility {
    /// Its owner.
    Private,
    /// Everybody.
    Public,
}

impl Visibility {
    const ALL: [Self; 2] = [Self::Private, Self::Public];

    /// Its word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Public => "public",
        }
    }
}

/// A template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateRow {
    /// Its place in lists.
    pub seq: i64,
    /// Its id.
    pub id: MachineId,
    /// Whose it is.
    pub tenant: String,
    /// Its name, one of its kind in the tenant.
    pub name: String,
    /// Who may use it.
    pub visibility: Visibility,
    /// What runs in it.
    pub guest: String,
    /// vCPUs.
    pub vcpus: u32,
    /// RAM, MiB.
    pub memory_mib: u32,
    /// When it was made.
    pub created: Timestamp,
}

fn template(row: &Row<'_>) -> Result<TemplateRow, StoreError> {
    Ok(TemplateRow {
        seq: get(row, "seq")?,
        id: MachineId::from_bytes(bytes(row, "id")?),
        tenant: get(row, "tenant")?,
        name: get(row, "name")?,
        visibility: word(row, "visibility", &Visibility::ALL, Visibility::as_str)?,
        guest: get(row, "guest")?,
        vcpus: number(row, "vcpus")?,
        memory_mib: number(row, "memory_mib")?,
        created: time(row, "created_ms")?,
    })
}

impl Read<'_> {
    /// A template that `tenant` may see: its own or a public one.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn template(&self, tenant: &str, id: MachineId) -> Result<Option<TemplateRow>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT * FROM templates WHERE id = ?2 AND (tenant = ?1 OR visibility = 'public')",
        )?;
        let row = statement
            .query_row((tenant, id.as_bytes()), |row| Ok(template(row)))
            .optional()?;
        row.transpose()
    }

    /// The same by name; a tenant's own comes before a public one.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn template_by_name(
        &self,
        tenant: &str,
        name: &str,
    ) -> Result<Option<TemplateRow>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT * FROM templates WHERE name = ?2 AND (tenant = ?1 OR visibility = 'public')
             ORDER BY tenant <> ?1, seq LIMIT 1",
        )?;
        let row = statement
            .query_row((tenant, name), |row| Ok(template(row)))
            .optional()?;
        row.transpose()
    }

    /// Templates that `tenant` may see, oldest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn templates(&self, tenant: &str, page: Page) -> Result<Vec<TemplateRow>, StoreError> {
        self.all(
            "SELECT * FROM templates WHERE seq > ?2 AND (tenant = ?1 OR visibility = 'public')
             ORDER BY seq LIMIT ?3",
            (tenant, page.after, page.limit),
            template,
        )
    }

    /// All of them, for the engine's start.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn all_templates(&self) -> Result<Vec<TemplateRow>, StoreError> {
        self.all("SELECT * FROM templates ORDER BY seq", [], template)
    }
}

impl Write<'_> {
    /// A new template; its place in lists is given by the database.
    ///
    /// # Errors
    /// [`StoreError::Exists`] if the tenant has one of that name, or the database cannot be written.
    pub fn add_template(&mut self, row: &TemplateRow) -> Result<(), StoreError> {
        self.execute(
            "INSERT INTO templates (id, tenant, name, visibility, guest, vcpus, memory_mib, created_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            (
                row.id.as_bytes(),
                &row.tenant,
                &row.name,
                row.visibility.as_str(),
                &row.guest,
                row.vcpus,
                row.memory_mib,
                row.created.as_millis(),
            ),
        )?;
        Ok(())
    }

    /// Removes a template of a tenant; whether there was one.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn remove_template(&mut self, tenant: &str, id: MachineId) -> Result<bool, StoreError> {
        let delete = "DELETE FROM templates WHERE tenant = ?1 AND id = ?2";
        Ok(self.execute(delete, (tenant, id.as_bytes()))? > 0)
    }
}
