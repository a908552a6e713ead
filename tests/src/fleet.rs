//! A whole edge: an etcd cluster, routers that share it, tenants whose registrars announce their
//! workers, and clients. Each on a host of its own, all on one segment.

pub mod api;
pub mod door;
pub mod storm;
pub mod tenant;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use crate::ca::{Ca, KeyKind};
use crate::client::TlsClient;
use crate::clients::Plan;
use crate::etcd::{Cluster, Place};
use crate::folder::{self, Folder};
use crate::h2_clients;
use crate::namespace::{Host, Network};
use crate::tool::Tool;
use crate::wait;

use api::Api;
use door::Door;
use tenant::{Announcing, Tenant, TenantPlan, Worker};

/// What a fleet is to be like.
#[derive(Clone, Debug)]
pub struct FleetPlan {
    /// Members of the etcd cluster; 0: there is none, and a single router keeps its own store.
    pub etcd: usize,
    /// Routers.
    pub routers: usize,
    /// What is added to a router's clock, by router; the machine's when absent.
    pub router_clocks: Vec<&'static str>,
    /// The tenants.
    pub tenants: Vec<TenantPlan>,
    /// How long an announcement holds, in whole seconds.
    pub ttl: Duration,
    /// How often it is renewed, in whole seconds.
    pub renew: Duration,
}

impl Default for FleetPlan {
    /// Three members, three routers, two tenants with two workers each; 5 s, renewed every second.
    fn default() -> Self {
        Self {
            etcd: 3,
            routers: 3,
            router_clocks: Vec::new(),
            tenants: vec![
                TenantPlan::new(
                    "acme",
                    "*-apps-1.k8s.example.org",
                    "shop-apps-1.k8s.example.org",
                ),
                TenantPlan::new(
                    "globex",
                    "*-apps-2.k8s.example.org",
                    "shop-apps-2.k8s.example.org",
                ),
            ],
            ttl: Duration::from_secs(5),
            renew: Duration::from_secs(1),
        }
    }
}

/// A running fleet.
#[derive(Debug)]
pub struct Fleet {
    /// Tenants; their registrars end first, so that they can still withdraw.
    pub tenants: Vec<Tenant>,
    /// The routers.
    pub routers: Vec<Door>,
    /// The store, unless it is in the router.
    pub etcd: Option<Cluster>,
    /// Hosts of the store's members.
    pub etcd_hosts: Vec<Host>,
    /// Where clients and operators are.
    pub client: Host,
    /// The segment.
    pub network: Network,
    /// Who signed everything but etcd's certificates.
    pub ca: Ca,
    /// How long an announcement holds.
    pub ttl: Duration,
    operator: TlsClient,
    folder: Folder,
}

impl Fleet {
    /// Starts everything and waits until every router knows every worker.
    ///
    /// # Errors
    /// If a part does not come up.
    pub fn start(label: &str, plan: &FleetPlan) -> Result<Self> {
        let mut fleet = Self::bare(label, plan)?;
        for tenant in &plan.tenants {
            fleet.add_tenant(tenant, plan)?;
            fleet.announce(fleet.tenants.len() - 1)?;
        }
        fleet.wait_for_everybody()?;
        Ok(fleet)
    }

    /// As [`Fleet::start`], without any tenant.
    ///
    /// # Errors
    /// If a part does not come up.
    pub fn bare(label: &str, plan: &FleetPlan) -> Result<Self> {
        let mut network = Network::new()?;
        let mut hosts = |kind: &str, count: usize| -> Result<Vec<Host>> {
            (1..=count)
                .map(|number| network.host(&format!("{kind}-{number}")))
                .collect()
        };
        let (etcd_hosts, router_hosts) = (hosts("etcd", plan.etcd)?, hosts("edge", plan.routers)?);
        let client = network.host("client")?;
        let folder = Folder::new(label)?;
        let home = folder.path();
        let ca = Ca::new(&format!("throw-away authority of {label}"))?;
        std::fs::create_dir(home.join("certs"))?;
        ca.issue(&["*.k8s.example.org"], KeyKind::Ecdsa)?
            .write(&home.join("certs"), "wildcard")?;
        folder::write(&home.join("ca.pem"), ca.pem())?;
        let places: Vec<Place> = etcd_hosts.iter().map(Place::on).collect();
        let etcd = match plan.etcd {
            0 => None,
            _ => Some(Cluster::start(home, &places)?),
        };
        let identity = ca.issue_client("spiffe://gatehouse/operator/drill")?;
        let operator = TlsClient::with_identity(&ca, &identity, &["http/1.1"])?;
        let mut routers = Vec::new();
        for (number, host) in router_hosts.into_iter().enumerate() {
            let clock = plan.router_clocks.get(number).copied();
            let mut door = Door::new(host, clock, home, &ca, etcd.as_ref())?;
            door.start()?;
            routers.push(door);
        }
        Ok(Self {
            tenants: Vec::new(),
            routers,
            etcd,
            etcd_hosts,
            client,
            network,
            ca,
            ttl: plan.ttl,
            operator,
            folder,
        })
    }

    /// Leases a tenant its zone, gives it a token and starts its workers; announces nothing yet.
    ///
    /// # Errors
    /// If a part does not come up.
    pub fn add_tenant(&mut self, tenant: &TenantPlan, plan: &FleetPlan) -> Result<()> {
        let hosts: Vec<Host> = (1..=tenant.workers)
            .map(|number| self.network.host(&format!("{}-w{number}", tenant.name)))
            .collect::<Result<_>>()?;
        let addresses: Vec<IpAddr> = hosts.iter().map(|it| it.v4).collect();
        let operator = self.operator(0);
        operator.succeed(
            "PUT",
            &format!("/v1/zones/{}/{}", tenant.name, tenant.rule),
            Some(&json!({"addresses": addresses, "shared": tenant.shared_zone})),
        )?;
        let made = operator.succeed(
            "POST",
            "/v1/tokens",
            Some(&json!({"tenant": tenant.name, "note": "registrars"})),
        )?;
        let token = made["token"].as_str().context("a new token")?.to_owned();
        let registries: Vec<SocketAddr> = self.routers.iter().map(Door::api).collect();
        let announcing = Announcing {
            token: &token,
            registries: &registries,
            ttl: plan.ttl.as_secs(),
            renew: plan.renew.as_secs(),
        };
        let home = self.home().to_owned();
        let mut workers = Vec::new();
        for (number, host) in hosts.into_iter().enumerate() {
            let clock = tenant.clocks.get(number).copied();
            workers.push(Worker::new(host, tenant, clock, &home, &announcing)?);
        }
        self.tenants.push(Tenant {
            plan: tenant.clone(),
            token,
            workers,
        });
        Ok(())
    }

    /// Starts a tenant's registrars.
    ///
    /// # Errors
    /// If one cannot be started.
    pub fn announce(&mut self, tenant: usize) -> Result<()> {
        let workers = &mut self.tenants[tenant].workers;
        workers.iter_mut().try_for_each(Worker::start_registrar)
    }

    fn home(&self) -> &Path {
        self.folder.path()
    }

    /// The registry of a router, as an operator calls it.
    #[must_use]
    pub fn operator(&self, router: usize) -> Api {
        Api {
            tls: self.operator.clone(),
            namespace: self.client.namespace.clone(),
            address: self.routers[router].api(),
            token: None,
        }
    }

    /// The registry of a router, as a tenant calls it.
    #[must_use]
    pub fn caller(&self, tenant: usize, router: usize) -> Api {
        Api {
            tls: TlsClient::new(&self.ca, &["http/1.1"]),
            token: Some(self.tenants[tenant].token.clone()),
            ..self.operator(router)
        }
    }

    /// The etcd cluster.
    ///
    /// # Panics
    /// If the fleet has none.
    pub fn cluster(&mut self) -> &mut Cluster {
        self.etcd
            .as_mut()
            .expect("this fleet was planned with etcd")
    }

    /// Waits until every router that runs forwards each tenant's requests to all of its workers,
    /// and to nobody else.
    ///
    /// # Errors
    /// If that does not happen.
    pub fn wait_for_everybody(&self) -> Result<()> {
        for tenant in 0..self.tenants.len() {
            self.wait_for_endpoints(tenant, &self.tenants[tenant].endpoints())?;
        }
        Ok(())
    }

    /// Waits until every router that runs forwards a tenant's requests to exactly these.
    ///
    /// # Errors
    /// With what it does instead.
    pub fn wait_for_endpoints(&self, tenant: usize, wanted: &BTreeSet<SocketAddr>) -> Result<()> {
        for door in self.routers.iter().filter(|it| it.router.is_some()) {
            self.wait_at(door, tenant, wanted)?;
        }
        Ok(())
    }

    /// Waits until one router forwards a tenant's requests to exactly these.
    ///
    /// # Errors
    /// With what it does instead.
    pub fn wait_at(&self, door: &Door, tenant: usize, wanted: &BTreeSet<SocketAddr>) -> Result<()> {
        let rule = self.tenants[tenant].plan.rule;
        let what = format!("{} to forward {rule} to {wanted:?}", door.host.name);
        wait::until_true(&what, || door.endpoints(rule).is_ok_and(|it| it == *wanted))
            .with_context(|| format!("it has {:?}", door.endpoints(rule)))
    }

    /// Clients that know every router, one after the other for each tenant; every tenth request
    /// is a POST.
    #[must_use]
    pub fn load(&self) -> Plan {
        let addresses: Vec<SocketAddr> = self.routers.iter().map(Door::https).collect();
        let hosts: Vec<&str> = self.tenants.iter().map(|it| it.plan.host).collect();
        Plan {
            clients: 2 * addresses.len().max(hosts.len()),
            posts: 10,
            ..Plan::new(
                &TlsClient::new(&self.ca, &["http/1.1"]),
                &self.client.namespace,
                &addresses,
                &hosts,
            )
        }
    }

    /// Clients of HTTP/2 who ask for a tenant's host, one at each router.
    #[must_use]
    pub fn streams(&self, tenant: usize) -> h2_clients::Plan {
        h2_clients::Plan {
            tls: TlsClient::new(&self.ca, &["h2"]),
            namespace: self.client.namespace.clone(),
            addresses: self.routers.iter().map(Door::https).collect(),
            host: self.tenants[tenant].plan.host.to_owned(),
        }
    }

    /// Cuts a router off from the store: packets between them vanish, in both directions.
    ///
    /// # Errors
    /// If nft refuses.
    pub fn cut_off(&self, router: usize) -> Result<()> {
        let members: Vec<String> = self.etcd_hosts.iter().map(|it| it.v4.to_string()).collect();
        let members = members.join(", ");
        let rules = format!(
            "table ip cut {{\n\
             chain in {{ type filter hook input priority -500; ip saddr {{ {members} }} drop; }}\n\
             chain out {{ type filter hook output priority -500; ip daddr {{ {members} }} drop; }}\n\
             }}\n"
        );
        self.nft(router, &rules)
    }

    /// Undoes [`Fleet::cut_off`].
    ///
    /// # Errors
    /// If nft refuses.
    pub fn heal(&self, router: usize) -> Result<()> {
        self.nft(router, "delete table ip cut\n")
    }

    fn nft(&self, router: usize, rules: &str) -> Result<()> {
        Tool::new("nft")
            .args(["-f", "-"])
            .input(rules)
            .namespace(Some(&self.routers[router].host.namespace))
            .succeed()
            .map(drop)
    }
}
