//! What the demo shows, in order.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use harness::load::Tally;
use harness::{wait, websocket};

use crate::announcements;
use crate::report::{Report, Row};
use crate::stage::{ENCRYPTED, NEW_HOST, PLAIN, Stage, Tenant};

/// Answers to wait for between two events under load.
pub(crate) const STRETCH: usize = 1_000;

/// Messages sent over the WebSocket.
const MESSAGES: usize = 20;

/// Everything, and the table.
pub(crate) fn play(stage: &mut Stage, report: &mut Report) -> Result<()> {
    announcements::leases(stage, report)?;
    announcements::announced(stage, report)?;
    redirect(stage, report)?;
    both_protocols(stage, report)?;
    web_socket(stage, report)?;
    announcements::go_and_come(stage, report)?;
    announcements::foreign_claims(stage, report)?;
    under_load(stage, report)?;
    report.row(Row {
        what: "curl".into(),
        requests: report.curls,
        failures: 0,
        by: "the commands above".into(),
    });
    report.row(Row {
        what: "WebSocket".into(),
        requests: MESSAGES,
        failures: 0,
        by: "one connection, echoed".into(),
    });
    report.table();
    Ok(())
}

fn redirect(stage: &Stage, report: &mut Report) -> Result<()> {
    report.heading("Plain HTTP is redirected, never forwarded");
    let target = "/cart?item=7";
    let url = format!("http://{}{target}", stage.authority("http", PLAIN.host));
    let shown = curl(
        stage,
        report,
        &["-w", r"%{http_code} -> %{redirect_url}\n", &url],
    )?;
    let expected = format!(
        "308 -> https://{}{target}",
        stage.authority("https", PLAIN.host)
    );
    ensure!(
        shown.trim_end().ends_with(&expected),
        "expected {expected:?}"
    );
    Ok(())
}

fn both_protocols(stage: &Stage, report: &mut Report) -> Result<()> {
    report.heading("HTTP/2 and HTTP/1.1 to both tenants");
    for tenant in [PLAIN, ENCRYPTED] {
        for (option, version) in [("--http2", "2"), ("--http1.1", "1.1")] {
            let url = format!("https://{}/hello", stage.authority("https", tenant.host));
            let shown = curl(
                stage,
                report,
                &[option, "-w", r"HTTP/%{http_version} %{http_code}\n", &url],
            )?;
            ensure!(
                shown.contains(&format!("of tenant {}\n", tenant.name))
                    && shown.contains(&format!("HTTP/{version} 200")),
                "expected HTTP/{version} 200 from tenant {}",
                tenant.name
            );
        }
    }
    Ok(())
}

fn web_socket(stage: &Stage, report: &Report) -> Result<()> {
    report.heading("A WebSocket, through the router and NGINX");
    let url = format!("wss://{}/ws", stage.authority("https", PLAIN.host));
    let mut socket = websocket::Client::open(&url, stage.connect(PLAIN.host)?)?;
    for number in 0..MESSAGES {
        socket.echo(&format!("message {number}"))?;
    }
    socket.close()?;
    report.holds(&format!(
        "{url}: {MESSAGES} messages sent, {MESSAGES} came back"
    ));
    Ok(())
}

fn under_load(stage: &mut Stage, report: &mut Report) -> Result<()> {
    report.heading("Under load: a worker dies, a route is added");
    let begun = Instant::now();
    let (plain, encrypted) = (stage.load(PLAIN), stage.load(ENCRYPTED));
    plain.wait_for(STRETCH)?;

    let victim = PLAIN.workers[0];
    let nginx = stage.worker(victim)?.nginx()?;
    report.command(&format!("kill -KILL {}", nginx.pid()));
    nginx.crash();
    report.result(&format!("worker {victim} of {} is dead", PLAIN.name));
    plain.wait_for(STRETCH)?;

    let url = format!("https://{}/hello", stage.authority("https", NEW_HOST));
    let status = ["-o", "/dev/null", "-w", r"%{http_code}\n", &url];
    let before = curl(stage, report, &status)?;
    ensure!(
        before.trim() == "404",
        "expected 404 for a host without a route"
    );
    let added = Instant::now();
    add_route(stage, report)?;
    wait::until("the new route to work", Duration::from_secs(20), || {
        stage
            .status(NEW_HOST)
            .is_ok_and(|it| it == 200)
            .then_some(())
    })?;
    let after = added.elapsed();
    curl(stage, report, &[&url])?;
    report.holds(&format!(
        "the new route answers after {:.1} s",
        after.as_secs_f64()
    ));
    encrypted.wait_for(STRETCH)?;

    let (plain, encrypted) = (plain.finish(), encrypted.finish());
    let seconds = begun.elapsed().as_secs_f64();
    let other = format!("{} meanwhile", ENCRYPTED.name);
    for (tenant, what, tally) in [
        (PLAIN, format!("{victim} is killed"), &plain),
        (ENCRYPTED, other, &encrypted),
    ] {
        report.row(Row::of_gets(&what, tally));
        if let Some(first) = tally.failures.first() {
            bail!(
                "{} GETs of {} failed, first {first}",
                tally.failures.len(),
                tenant.name
            );
        }
    }
    for name in PLAIN.workers.iter().chain(&ENCRYPTED.workers) {
        let answered = plain.workers.contains_key(*name) || encrypted.workers.contains_key(*name);
        ensure!(answered, "worker {name} answered nothing");
    }
    let total = plain.answered() + encrypted.answered();
    report.holds(&format!("{total} GETs in {seconds:.1} s, 0 failed"));
    Ok(())
}

/// A route that nobody announces, and that stays: put by the tenant itself.
fn add_route(stage: &Stage, report: &Report) -> Result<()> {
    let Tenant { name, .. } = ENCRYPTED;
    let (token, server_name) = (format!("{name}.token"), ENCRYPTED.ingress_name());
    let endpoints = stage.workers_of(ENCRYPTED);
    let endpoints: Vec<String> = endpoints.map(|it| it.endpoint().to_string()).collect();
    let mut arguments = vec!["registry", "route", "add", NEW_HOST];
    for endpoint in &endpoints {
        arguments.extend(["--endpoint", endpoint]);
    }
    arguments.extend(["--tls-server-name", &server_name, "--tls-ca", "ca.pem"]);
    arguments.extend(["--token-file", &token]);
    announcements::router(stage, report, &arguments)
}

/// Who answered how often.
pub(crate) fn answered_by(tally: &Tally) -> String {
    let workers = tally.workers.iter();
    let each: Vec<String> = workers
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    each.join(", ")
}

/// Runs curl on the client's host and shows command and output.
pub(crate) fn curl(stage: &Stage, report: &mut Report, arguments: &[&str]) -> Result<String> {
    let tool = stage.tool("curl", arguments);
    report.command(tool.line());
    let output = tool.succeed()?;
    report.result(&output);
    report.curls += 1;
    Ok(output)
}
