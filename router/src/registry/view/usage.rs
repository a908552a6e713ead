//! How much each tenant has in the registry, kept up with every record, so that nobody has to count.
//! Pure.

use std::collections::HashMap;
use std::sync::Arc;

/// What a tenant has, or what a change adds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Rules that it holds.
    pub routes: usize,
    /// Instances that announce.
    pub instances: usize,
    /// Keys and values of its routes' and instances' records.
    pub bytes: usize,
}

/// Instances and bytes by tenant.
#[derive(Debug, Default)]
pub(super) struct Usages(HashMap<Arc<str>, Usage>);

impl Usage {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            routes: self.routes.saturating_add(other.routes),
            instances: self.instances.saturating_add(other.instances),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }
}

impl Usages {
    pub(super) fn of(&self, tenant: &str) -> Usage {
        self.0.get(tenant).copied().unwrap_or_default()
    }

    /// A record of so many bytes came.
    pub(super) fn add(&mut self, tenant: &Arc<str>, instances: usize, bytes: u32) {
        let usage = self.0.entry(Arc::clone(tenant)).or_default();
        usage.instances += instances;
        usage.bytes += bytes as usize;
    }

    /// One that had come went.
    pub(super) fn take(&mut self, tenant: &str, instances: usize, bytes: u32) {
        let Some(usage) = self.0.get_mut(tenant) else {
            return;
        };
        usage.instances = usage.instances.saturating_sub(instances);
        usage.bytes = usage.bytes.saturating_sub(bytes as usize);
        if *usage == Usage::default() {
            self.0.remove(tenant);
        }
    }
}
