//! What becomes of a packet, and why: the reference verdict for a person.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;

use config::guard::Protocol;
use serde::Serialize;

use crate::policy::Policy;
use crate::verdict::{Packet, Pass, Reason, Stage, Verdict, Way, judge};

/// A question about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Question {
    /// Who sends it.
    pub source: IpAddr,
    /// To whom.
    pub destination: IpAddr,
    /// Above IP.
    pub protocol: Protocol,
    /// To which port.
    pub port: u16,
    /// Whether it comes by another device than the one that an answer would leave by.
    pub by_another_device: bool,
}

/// What is asked at one stage, and the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// The stage's name.
    pub stage: &'static str,
    /// Where the ruleset asks.
    pub hook: &'static str,
    /// The answer.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// The way of a packet through this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// What was asked.
    pub question: Question,
    /// Whether the packet gets through if nobody changes its destination.
    pub passes: bool,
    /// Arrival, then where it goes.
    pub steps: Vec<Step>,
    /// What would become of it if a Service on this node had turned it towards this destination.
    pub by_service: Step,
}

/// Explains. `own` are this node's addresses.
#[must_use]
pub fn explain(policy: &Policy, own: &BTreeSet<IpAddr>, question: Question) -> Explanation {
    let is_own = |address: IpAddr| own.contains(&address) || address.is_loopback();
    let is_here = own.contains(&question.destination);
    let packet = Packet {
        source: question.source,
        destination: question.destination,
        protocol: question.protocol,
        port: question.port,
        way: Way {
            by_loopback: is_own(question.source)
                && is_own(question.destination)
                && !question.by_another_device,
            is_here: is_here || question.destination.is_loopback(),
            reverse_path: !question.by_another_device,
        },
    };
    let step = |stage| Step {
        stage: stage_name(stage),
        hook: hook(stage),
        verdict: judge(policy, &packet, stage),
    };
    let (next, changed) = if packet.way.is_here {
        (Stage::Delivery, Stage::ChangedDelivery)
    } else {
        (Stage::Forwarding, Stage::Forwarding)
    };
    let mut steps = vec![step(Stage::Arrival)];
    if matches!(steps[0].verdict, Verdict::Pass(_)) {
        steps.push(step(next));
    }
    Explanation {
        question,
        passes: steps
            .iter()
            .all(|step| matches!(step.verdict, Verdict::Pass(_))),
        steps,
        by_service: step(changed),
    }
}

fn stage_name(stage: Stage) -> &'static str {
    match stage {
        Stage::Arrival => "on arrival",
        Stage::Delivery => "for this node",
        Stage::ChangedDelivery => "for this node, turned here by a Service",
        Stage::Forwarding => "passed on to another",
    }
}

fn hook(stage: Stage) -> &'static str {
    match stage {
        Stage::Arrival => "prerouting",
        Stage::Delivery | Stage::ChangedDelivery => "input",
        Stage::Forwarding => "forward",
    }
}

impl Explanation {
    /// For a terminal.
    #[must_use]
    pub fn text(&self, policy: &Policy) -> String {
        let Question {
            source,
            destination,
            protocol,
            port,
            ..
        } = self.question;
        let name = policy.port_name(protocol, port);
        let name = name.map_or(String::new(), |name| format!(" ({name})"));
        let verdict = if self.passes { "PASS" } else { "DROP" };
        let mut out = format!(
            "{verdict}  {source} -> {destination}, {protocol} {port}{name}, on {}\n",
            policy.node
        );
        // Writing to a String cannot fail.
        for step in &self.steps {
            let _ = writeln!(
                out,
                "  {:<10} {}: {}",
                step.hook,
                step.stage,
                because(&step.verdict)
            );
        }
        if self.passes {
            let step = &self.by_service;
            let _ = writeln!(
                out,
                "  if a Service had turned it here: {}",
                because(&step.verdict)
            );
        }
        out
    }
}

/// A verdict in words.
#[must_use]
pub fn because(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Pass(Pass::Loopback) => "passes: the node talks to itself".to_owned(),
        Verdict::Pass(Pass::NotIsolated) => "passes: the port is isolated nowhere".to_owned(),
        Verdict::Pass(Pass::NotIsolatedThere) => {
            "passes: no node of this cluster has an isolated port there".to_owned()
        }
        Verdict::Pass(Pass::Node(name)) => format!("passes: {name} is a node of the cluster"),
        Verdict::Pass(Pass::Router(name)) => format!("passes: {name} is a router"),
        Verdict::Pass(Pass::AllowedPod(range)) => {
            format!("passes: a pod of {range}, and pods may reach this port")
        }
        Verdict::Drop(Reason::Stranger) => {
            "drops: the source is neither a node of the cluster nor a router".to_owned()
        }
        Verdict::Drop(Reason::Pod) => {
            "drops: the source is a pod, and `pods.ports` does not name this port".to_owned()
        }
        Verdict::Drop(Reason::Relayed) => {
            "drops: peers send straight to an address that the files name; this came by a Service, a \
             route or another address".to_owned()
        }
        Verdict::Drop(Reason::Spoofed) => {
            "drops: an answer to this source would leave by another device".to_owned()
        }
        Verdict::Drop(Reason::Loopback) => {
            "drops: 127.0.0.0/8 from outside".to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Node;
    use config::roles::Role;

    #[test]
    fn an_answer_names_the_hook_and_the_reason() {
        let mut policy = Policy::shut("acme", "w1", Some(Role::Worker));
        let this = Node {
            role: Role::Worker,
            addresses: vec!["10.0.0.11".parse().unwrap()],
        };
        policy.nodes.insert("w1".to_owned(), this);
        let own = BTreeSet::from(["10.0.0.11".parse().unwrap()]);
        let ask = |source: &str, destination: &str| {
            let question = Question {
                source: source.parse().unwrap(),
                destination: destination.parse().unwrap(),
                protocol: Protocol::Tcp,
                port: 10250,
                by_another_device: false,
            };
            explain(&policy, &own, question)
        };
        let stranger = ask("198.51.100.1", "10.0.0.11");
        assert!(!stranger.passes);
        let text = stranger.text(&policy);
        assert!(
            text.starts_with("DROP  198.51.100.1 -> 10.0.0.11, tcp 10250 (kubelet), on w1"),
            "{text}"
        );
        assert!(
            text.contains("prerouting") && text.contains("neither a node"),
            "{text}"
        );
        assert!(
            ask("10.0.0.11", "10.0.0.11").passes,
            "a node reaches itself"
        );
        assert!(ask("127.0.0.1", "127.0.0.1").passes);
        assert!(!ask("198.51.100.1", "127.0.0.1").passes);
        let json = serde_json::to_value(ask("198.51.100.1", "10.0.0.11")).unwrap();
        assert_eq!(json["steps"][0]["verdict"], "drop");
        assert_eq!(json["steps"][0]["because"], "stranger");
    }
}
