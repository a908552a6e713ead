//! What the demo shows, in order.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use harness::load::{Load, Tally};
use harness::{wait, websocket};

use crate::report::{Report, Row};
use crate::stage::{ENCRYPTED, NEW_HOST, PLAIN, Stage, Tenant};

/// Answers to wait for between two events under load.
const STRETCH: usize = 1_000;

/// Messages sent over the WebSocket.
const MESSAGES: usize = 20;

/// Everything, and the table.
pub(crate) fn play(stage: &mut Stage, report: &mut Report) -> Result<()> {
    let mut curls = 0;
    redirect(stage, report, &mut curls)?;
    both_protocols(stage, report, &mut curls)?;
    web_socket(stage, report)?;
    under_load(stage, report, &mut curls)?;
    report.row(Row {
        what: "curl".into(),
        requests: curls,
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

fn redirect(stage: &Stage, report: &Report, curls: &mut usize) -> Result<()> {
    report.heading("Plain HTTP is redirected, never forwarded");
    let target = "/cart?item=7";
    let url = format!("http://{}{target}", stage.authority("http", PLAIN.host));
    let shown = curl(
        stage,
        report,
        &["-w", r"%{http_code} -> %{redirect_url}\n", &url],
    )?;
    *curls += 1;
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

fn both_protocols(stage: &Stage, report: &Report, curls: &mut usize) -> Result<()> {
    report.heading("HTTP/2 and HTTP/1.1 to both tenants");
    for tenant in [PLAIN, ENCRYPTED] {
        for (option, version) in [("--http2", "2"), ("--http1.1", "1.1")] {
            let url = format!("https://{}/hello", stage.authority("https", tenant.host));
            let shown = curl(
                stage,
                report,
                &[option, "-w", r"HTTP/%{http_version} %{http_code}\n", &url],
            )?;
            *curls += 1;
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
    let connect = || stage.tls.connect(stage.https, PLAIN.host);
    let connection = stage
        .namespace()
        .map_or_else(connect, |it| it.run(connect))?;
    let url = format!("wss://{}/ws", stage.authority("https", PLAIN.host));
    let mut socket = websocket::Client::open(&url, connection)?;
    for number in 0..MESSAGES {
        socket.echo(&format!("message {number}"))?;
    }
    socket.close()?;
    report.holds(&format!(
        "{url}: {MESSAGES} messages sent, {MESSAGES} came back"
    ));
    Ok(())
}

fn under_load(stage: &mut Stage, report: &mut Report, curls: &mut usize) -> Result<()> {
    report.heading("Under load: a worker dies, a route is added");
    let begun = Instant::now();
    let start = |tenant: Tenant| {
        Load::start(
            4,
            &stage.tls,
            stage.https,
            &[tenant.host],
            stage.namespace(),
        )
    };
    let (plain, encrypted) = (start(PLAIN)?, start(ENCRYPTED)?);
    plain.wait_for(STRETCH)?;

    let victim = stage
        .workers
        .iter_mut()
        .find(|it| it.name == PLAIN.workers[0])
        .context("the first worker is on the stage")?;
    report.command(&format!("kill -KILL {}", victim.nginx.process.pid()));
    victim.nginx.process.crash();
    report.result(&format!(
        "worker {} of {} is dead",
        victim.name, victim.tenant
    ));
    plain.wait_for(STRETCH)?;

    let url = format!("https://{}/hello", stage.authority("https", NEW_HOST));
    let status = ["-o", "/dev/null", "-w", r"%{http_code}\n", &url];
    let before = curl(stage, report, &status)?;
    *curls += 1;
    ensure!(
        before.trim() == "404",
        "expected 404 for a host without a route"
    );
    let file = stage.add_route()?;
    let added = Instant::now();
    report.line(&format!(
        "  routes.d/{} is dropped into place",
        file.file_name().unwrap_or_default().to_string_lossy()
    ));
    wait::until("the new route to work", Duration::from_secs(20), || {
        stage
            .tool("curl", &status)
            .succeed()
            .ok()
            .filter(|it| it.trim() == "200")
    })?;
    let after = added.elapsed();
    curl(stage, report, &[&url])?;
    *curls += 1;
    report.holds(&format!(
        "the new route answers after {:.1} s",
        after.as_secs_f64()
    ));
    encrypted.wait_for(STRETCH)?;

    let (plain, encrypted) = (plain.finish(), encrypted.finish());
    let seconds = begun.elapsed().as_secs_f64();
    for (tenant, tally) in [(PLAIN, &plain), (ENCRYPTED, &encrypted)] {
        report.row(row(tenant, tally));
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

fn row(tenant: Tenant, tally: &Tally) -> Row {
    let killed = PLAIN.workers[0];
    let by: Vec<String> = tally
        .workers
        .iter()
        .map(|(name, count)| {
            let note = if name == killed { " until killed" } else { "" };
            format!("{name} {count}{note}")
        })
        .collect();
    Row {
        what: format!("GET, tenant {}", tenant.name),
        requests: tally.answered() + tally.failures.len(),
        failures: tally.failures.len(),
        by: by.join(", "),
    }
}

/// Runs curl on the client's host and shows command and output.
fn curl(stage: &Stage, report: &Report, arguments: &[&str]) -> Result<String> {
    let tool = stage.tool("curl", arguments);
    report.command(tool.line());
    let output = tool.succeed()?;
    report.result(&output);
    Ok(output)
}
