//! The store of several routers: an etcd cluster. It comes with the next commit.

use std::time::Duration;

use config::router::EtcdStore;

use super::{Batch, Committed, LeaseId, Listing, Range, Revision, StoreError, Transaction};

/// A store in an etcd cluster; there is none yet.
#[derive(Debug)]
pub enum Etcd {}

/// Follows an etcd cluster; there is none yet.
#[derive(Debug)]
pub enum Watch {}

impl Watch {
    pub(super) async fn next(&mut self) -> Result<Batch, StoreError> {
        match *self {}
    }
}

impl Etcd {
    /// Refuses.
    ///
    /// # Errors
    /// Always.
    pub fn open(_: &EtcdStore) -> Result<Self, StoreError> {
        Err(StoreError::Failed("etcd is no store yet".into()))
    }

    pub(super) async fn read(&self, _: &[Range]) -> Result<Listing, StoreError> {
        match *self {}
    }

    pub(super) async fn list(&self) -> Result<Listing, StoreError> {
        match *self {}
    }

    pub(super) async fn watch(&self, _: Revision) -> Result<Watch, StoreError> {
        match *self {}
    }

    pub(super) async fn commit(&self, _: &Transaction) -> Result<Committed, StoreError> {
        match *self {}
    }

    pub(super) async fn grant(&self, _: Duration) -> Result<LeaseId, StoreError> {
        match *self {}
    }

    pub(super) async fn renew(&self, _: LeaseId) -> Result<(), StoreError> {
        match *self {}
    }

    pub(super) async fn revoke(&self, _: LeaseId) -> Result<(), StoreError> {
        match *self {}
    }
}
