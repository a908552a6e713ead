//! The report says what was measured, and nothing else.

use super::*;
use crate::contender::Contender;
use crate::load::exchange::Choice;
use crate::machine::Machine;
use crate::record::{Discarded, Participant, Settings, Window};
use crate::row::Row;

fn record(windows: Vec<Window>) -> Record {
    let unknown = || "unknown".to_owned();
    let choice = Choice {
        version: "TLSv1_3".to_owned(),
        cipher: "TLS13_AES_128_GCM_SHA256".to_owned(),
        group: "X25519".to_owned(),
        tickets: 2,
    };
    let participant = |contender| Participant {
        contender,
        version: "1.0".to_owned(),
        configuration: "workers: 1\n".to_owned(),
        forwarded: vec!["X-Forwarded-Proto: https".to_owned()],
        tls: vec![choice.clone()],
    };
    Record {
        machine: Machine {
            date: unknown(),
            processor: unknown(),
            cores: 2,
            kernel: unknown(),
            memory: unknown(),
            h2load: unknown(),
            commit: unknown(),
            load_average: unknown(),
        },
        settings: Settings {
            rounds: 2,
            seconds: 1.0,
            idle_connections: 8_000,
            rig_core: 0,
            contender_core: 1,
        },
        contenders: vec![
            participant(Contender::Router),
            participant(Contender::Nginx),
        ],
        windows,
        discarded: Vec::new(),
    }
}

fn window(row: Row, round: u32, contender: Contender, used: u64) -> Window {
    Window {
        row,
        round,
        contender,
        count: 100,
        used,
        wall_ns: 10_000_000,
    }
}

/// Six rounds; the router's ratio to NGINX is 0.5 and 0.9 in turn, to HAProxy 2.0 and 1.0.
fn three(row: Row) -> Record {
    let even = |round| {
        [
            window(row, round, Contender::Router, 1_000_000),
            window(row, round, Contender::Nginx, 2_000_000),
            window(row, round, Contender::Haproxy, 500_000),
        ]
    };
    let odd = |round| {
        [
            window(row, round, Contender::Haproxy, 1_800_000),
            window(row, round, Contender::Router, 1_800_000),
            window(row, round, Contender::Nginx, 2_000_000),
        ]
    };
    let rounds = [even(0), odd(1), even(2), odd(3), even(4), odd(5)];
    record(rounds.into_iter().flatten().collect())
}

#[test]
fn a_row_shows_cost_rate_share_and_ratio() {
    let text = document(&three(Row::H1));
    let expected = "| nginx | 20.00 (20.00 to 20.00) | 10000 | 20 % | 0.700 (0.500 to 0.900) | 6 |";
    assert!(text.contains(expected), "{text}");
    let expected = "| router | 14.00 (10.00 to 18.00) | 10000 | 14 % |  | 6 |";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn the_best_peer_is_the_one_that_costs_least_and_decides() {
    let text = document(&three(Row::H1));
    assert!(
        text.contains("| h1 | haproxy | 1.500 (1.000 to 2.000) | 1.00 | **missed** |"),
        "{text}"
    );
    let mut record = three(Row::H1);
    record
        .windows
        .retain(|window| window.contender != Contender::Haproxy);
    let text = document(&record);
    assert!(
        text.contains("| h1 | nginx | 0.700 (0.500 to 0.900) | 1.00 | met |"),
        "{text}"
    );
}

#[test]
fn a_missing_window_leaves_the_verdict_open() {
    let mut record = three(Row::H1);
    record
        .windows
        .retain(|window| window.contender != Contender::Nginx || window.round < 4);
    let text = document(&record);
    let expected = "| h1 | haproxy | 1.500 (1.000 to 2.000) | 1.00 | too few windows |";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn a_row_without_target_gets_no_verdict() {
    let text = document(&three(Row::Redirect));
    assert!(
        text.contains("| redirect | haproxy | 1.500 (1.000 to 2.000) | none |  |"),
        "{text}"
    );
}

#[test]
fn rows_that_were_not_run_are_absent() {
    let text = document(&three(Row::H2));
    assert!(text.contains("### h2:"), "{text}");
    for row in Row::ALL.into_iter().filter(|row| *row != Row::H2) {
        assert!(!text.contains(&format!("### {}:", row.name())), "{text}");
        assert!(!text.contains(&format!("| {} |", row.name())), "{text}");
    }
}

#[test]
fn without_the_router_there_is_no_verdict() {
    let mut record = three(Row::H1);
    record
        .windows
        .retain(|window| window.contender != Contender::Router);
    let text = document(&record);
    assert!(!text.contains("Verdict"), "{text}");
    assert!(
        text.contains("| nginx | 20.00 (20.00 to 20.00) | 10000 | 20 % |  | 6 |"),
        "{text}"
    );
}

#[test]
fn memory_is_shown_in_kib_per_connection() {
    let used = 100 * 12 * 1024;
    let text = document(&record(vec![window(Row::Idle, 0, Contender::Nginx, used)]));
    assert!(
        text.contains("| nginx | 12.00 (12.00 to 12.00) |  | 1 |"),
        "{text}"
    );
}

#[test]
fn discarded_windows_are_named() {
    let mut record = three(Row::H1);
    record.discarded.push(Discarded {
        row: Row::H1,
        round: 1,
        contender: Contender::Nginx,
        reason: "3 of 100 requests failed\nand the client's output".to_owned(),
    });
    let text = document(&record);
    assert!(
        text.contains("- h1, round 1, nginx: 3 of 100 requests failed\n"),
        "{text}"
    );
}
