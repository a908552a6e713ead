//! Routes that announce themselves: leased, announced, withdrawn, lapsed, claimed by others.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use harness::load::{Load, Tally};
use harness::wait;
use nix::sys::signal::Signal;

use crate::acts::{STRETCH, answered_by, curl};
use crate::report::{Report, Row};
use crate::stage::{ENCRYPTED, PLAIN, Stage, TTL, Tenant, registry_environment};

/// How late what nobody renews may leave.
const LATE: Duration = Duration::from_secs(1);

/// An operator leases names to the tenants; nothing is announced yet.
pub(crate) fn leases(stage: &Stage, report: &mut Report) -> Result<()> {
    report.heading("An operator leases names; nobody has announced anything");
    let variables = registry_environment(stage.registry);
    let variables = variables.map(|(name, value)| format!("{name}={value}"));
    report.command(&format!("export {}", variables.join(" ")));
    for tenant in [PLAIN, ENCRYPTED] {
        let names = tenant.names();
        let mut zone = vec!["registry", "zone", "add", tenant.name, &names];
        let addresses: Vec<String> = stage
            .workers_of(tenant)
            .map(|it| it.address().to_string())
            .collect();
        for address in &addresses {
            zone.extend(["--address", address]);
        }
        router(stage, report, &zone)?;
        let file = format!("{}.token", tenant.name);
        let token = ["--tenant", tenant.name, "--output", &file];
        router(
            stage,
            report,
            &[&["registry", "token", "create"], &token[..]].concat(),
        )?;
    }
    not_found(stage, report)
}

/// Registrars start: the routes are there.
pub(crate) fn announced(stage: &mut Stage, report: &mut Report) -> Result<()> {
    report.heading("Registrars start");
    let file = stage.worker(PLAIN.workers[0])?.registrar_file();
    report.command(&format!("cat {file}"));
    report.result(&stage.read(&file)?);
    let took = start_registrars(stage, report, PLAIN)?;
    report.holds(&format!("{}: the first answer after {took}", PLAIN.host));
    start_registrars(stage, report, ENCRYPTED)?;
    for tenant in [PLAIN, ENCRYPTED] {
        wait_for(stage, tenant, &tenant.workers)?;
    }
    router(stage, report, &["registry", "route", "list"])?;
    let tally = alone(stage, &PLAIN.workers)?;
    report.holds(&format!("GETs are answered by {}", answered_by(&tally)));
    report.row(Row::of_gets("announced", &tally));
    Ok(())
}

/// One announcement goes and comes, for each reason that there is.
pub(crate) fn go_and_come(stage: &mut Stage, report: &mut Report) -> Result<()> {
    a_check_fails(stage, report)?;
    a_registrar_dies(stage, report)?;
    all_are_withdrawn(stage, report)
}

/// The ingress goes: its registrar withdraws it.
fn a_check_fails(stage: &mut Stage, report: &mut Report) -> Result<()> {
    let [ill, well] = PLAIN.workers;
    report.heading("A worker's NGINX stops, and starts again");
    let load = stage.load(PLAIN);
    load.wait_for(STRETCH)?;

    let nginx = stage.worker(ill)?.nginx()?;
    report.command(&format!("kill -TERM {}", nginx.pid()));
    let since = Instant::now();
    nginx.stop();
    wait_for(stage, PLAIN, &[well])?;
    report.holds(&format!(
        "{ill} is withdrawn by its registrar after {}",
        seconds(since)
    ));
    let tally = alone(stage, &[well])?;
    report.holds(&format!(
        "meanwhile GETs are answered by {}",
        answered_by(&tally)
    ));

    report.command("nginx");
    let since = Instant::now();
    stage.worker(ill)?.start_nginx()?;
    wait_for(stage, PLAIN, &PLAIN.workers)?;
    report.holds(&format!(
        "{ill} is announced again after {}",
        seconds(since)
    ));
    back(stage, report, load, &format!("{ill}'s NGINX stops"))
}

/// The registrar goes without a word: nobody renews, and the endpoint leaves with its time to live.
fn a_registrar_dies(stage: &mut Stage, report: &mut Report) -> Result<()> {
    let [other, silent] = PLAIN.workers;
    report.heading("A registrar is killed, and started again; its NGINX runs on");
    let load = stage.load(PLAIN);
    load.wait_for(STRETCH)?;

    let registrar = stage.worker(silent)?.registrar()?;
    report.command(&format!("kill -KILL {}", registrar.pid()));
    let since = Instant::now();
    registrar.crash();
    wait_for(stage, PLAIN, &[other])?;
    let took = since.elapsed();
    ensure!(
        took <= TTL + LATE,
        "{silent} left {took:?} after its registrar, not within {TTL:?} and {LATE:?}"
    );
    report.holds(&format!(
        "{silent} leaves after {:.2} s; the time to live is {} s",
        took.as_secs_f64(),
        TTL.as_secs()
    ));
    let tally = alone(stage, &[other])?;
    report.holds(&format!(
        "meanwhile GETs are answered by {}",
        answered_by(&tally)
    ));

    let since = Instant::now();
    start_registrar(stage, report, silent)?;
    wait_for(stage, PLAIN, &PLAIN.workers)?;
    report.holds(&format!(
        "{silent} is announced again after {}",
        seconds(since)
    ));
    back(stage, report, load, &format!("{silent}'s registrar dies"))
}

/// Both registrars are told to stop: there is no such host any more.
fn all_are_withdrawn(stage: &mut Stage, report: &mut Report) -> Result<()> {
    report.heading("Both registrars are told to stop, and started again");
    let since = Instant::now();
    for name in PLAIN.workers {
        let registrar = stage.worker(name)?.registrar()?;
        report.command(&format!("kill -TERM {}", registrar.pid()));
        registrar.signal(Signal::SIGTERM);
    }
    wait::until_true("the withdrawn host to be unknown", || {
        stage.status(PLAIN.host).is_ok_and(|it| it == 404)
    })?;
    report.holds(&format!("withdrawn after {}", seconds(since)));
    for name in PLAIN.workers {
        let status = stage.worker(name)?.registrar()?.wait(wait::PATIENCE)?;
        ensure!(
            status.success(),
            "the registrar of {name} ended with {status}"
        );
    }
    not_found(stage, report)?;
    let took = start_registrars(stage, report, PLAIN)?;
    report.holds(&format!("{}: the first answer after {took}", PLAIN.host));
    wait_for(stage, PLAIN, &PLAIN.workers)?;
    let tally = alone(stage, &PLAIN.workers)?;
    report.holds(&format!("GETs are answered by {}", answered_by(&tally)));
    report.row(Row::of_gets("both withdrawn and back", &tally));
    Ok(())
}

/// A tenant claims what is another's, with its own token: name, and address.
pub(crate) fn foreign_claims(stage: &mut Stage, report: &mut Report) -> Result<()> {
    let (owner, rival) = (PLAIN, ENCRYPTED);
    report.heading(&format!(
        "{} claims a name and an address of {}",
        rival.name, owner.name
    ));
    let own_name = format!("stolen.{}.example.org", rival.name);
    let token = format!("{}.token", rival.name);
    let endpoint = |stage: &mut Stage, tenant: Tenant| -> Result<String> {
        Ok(stage.worker(tenant.workers[0])?.endpoint().to_string())
    };
    let (own, other) = (endpoint(stage, rival)?, endpoint(stage, owner)?);
    let mut reasons = Vec::new();
    for (host, endpoint, reason) in [
        (owner.host, &own, "outside-zones"),
        (&own_name, &other, "address-outside-zones"),
    ] {
        let tool = stage.router_tool(&[
            "registry",
            "route",
            "add",
            host,
            "--endpoint",
            endpoint,
            "--token-file",
            &token,
        ])?;
        report.command(tool.line());
        let output = tool.run()?;
        report.result(&output.stderr);
        ensure!(
            output.status.code() == Some(1) && output.stderr.contains(&format!("403 {reason}")),
            "expected a refusal, {reason}"
        );
        reasons.push(reason);
    }
    let tally = alone(stage, &owner.workers)?;
    report.holds(&format!("GETs are answered by {}", answered_by(&tally)));
    report.row(Row {
        what: format!("claims by {}", rival.name),
        requests: reasons.len(),
        failures: 0,
        by: format!("refused: {}", reasons.join(", ")),
    });
    Ok(())
}

/// Starts a tenant's registrars; gives the time until its host is served.
fn start_registrars(stage: &mut Stage, report: &Report, tenant: Tenant) -> Result<String> {
    let since = Instant::now();
    for name in tenant.workers {
        start_registrar(stage, report, name)?;
    }
    wait::until_true(&format!("{} to be served", tenant.host), || {
        stage.status(tenant.host).is_ok_and(|it| it == 200)
    })?;
    Ok(seconds(since))
}

fn start_registrar(stage: &mut Stage, report: &Report, name: &str) -> Result<()> {
    let worker = stage.worker(name)?;
    let file = worker.registrar_file();
    report.command(&format!("router announce --config {file} &"));
    worker.start_registrar()
}

/// Waits until the router forwards a tenant's requests to these workers and to nobody else.
fn wait_for(stage: &Stage, tenant: Tenant, workers: &[&str]) -> Result<()> {
    let wanted: BTreeSet<SocketAddr> = stage
        .workers_of(tenant)
        .filter(|it| workers.contains(&it.name))
        .map(|it| it.endpoint())
        .collect();
    let what = format!("{} to be forwarded to {}", tenant.host, workers.join(", "));
    wait::until_true(&what, || {
        let known = stage.router.endpoints(tenant.host);
        known.is_ok_and(|it| it == wanted)
    })
}

/// GETs of clients that have just come: these workers answer, each of them, and nobody else.
fn alone(stage: &Stage, workers: &[&str]) -> Result<Tally> {
    let load = stage.load(PLAIN);
    load.wait_for(STRETCH)?;
    // On a busy machine one of them may be slow to begin, and is left out for as long.
    let what = format!("answers from {}", workers.join(", "));
    wait::until_true(&what, || load.tally().workers.len() >= workers.len())?;
    let tally = load.finish();
    none_failed(&tally)?;
    let answering: Vec<&str> = tally.workers.keys().map(String::as_str).collect();
    ensure!(
        answering == workers,
        "answers came from {answering:?} instead of {workers:?}"
    );
    Ok(tally)
}

/// Everybody is back: the end of a load that went through it all.
fn back(stage: &Stage, report: &mut Report, load: Load, what: &str) -> Result<()> {
    alone(stage, &PLAIN.workers)?;
    let tally = load.finish();
    report.row(Row::of_gets(&format!("{what}, and is back"), &tally));
    none_failed(&tally)?;
    report.holds(&format!("{} GETs all along, 0 failed", tally.answered()));
    Ok(())
}

fn none_failed(tally: &Tally) -> Result<()> {
    if let Some(first) = tally.failures.first() {
        bail!("{} GETs failed, first {first}", tally.failures.len());
    }
    Ok(())
}

fn not_found(stage: &Stage, report: &mut Report) -> Result<()> {
    let url = format!("https://{}/hello", stage.authority("https", PLAIN.host));
    let status = ["-o", "/dev/null", "-w", r"%{http_code}\n", &url];
    let shown = curl(stage, report, &status)?;
    ensure!(shown.trim() == "404", "expected 404: nobody announces it");
    Ok(())
}

/// Runs `router` on the client's host and shows command and output.
pub(crate) fn router(stage: &Stage, report: &Report, arguments: &[&str]) -> Result<()> {
    let tool = stage.router_tool(arguments)?;
    report.command(tool.line());
    report.result(&tool.succeed()?);
    Ok(())
}

fn seconds(since: Instant) -> String {
    format!("{:.2} s", since.elapsed().as_secs_f64())
}
