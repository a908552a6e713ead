//! Writes to an embedded store of the registry until it is killed; for the test of that.
//!
//! `store-writer FOLDER` runs [`WRITERS`] tasks. Each says `WRITER NUMBER REVISION` on standard
//! output as soon as a transaction is committed, and goes on where the store says it was. The
//! transaction NUMBER writes NUMBER to two keys and one to a window of keys, from which it deletes
//! the oldest: so whoever looks can tell a whole transaction from half of one.
//!
//! `store-writer FOLDER hold` renews a lease of [`TTL`] all the time, and says so each time. It ends
//! when that fails.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use router::registry::store::embedded::Embedded;
use router::registry::store::{Committed, LeaseId, Put, Range, Store, Transaction};

const WRITERS: u32 = 4;
const WINDOW: u64 = 8;
const TTL: Duration = Duration::from_secs(2);

fn main() -> Result<()> {
    let folder = std::env::args_os().nth(1).context("which folder?")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let store = Embedded::open(Path::new(&folder)).await?;
        let store = Arc::new(Store::Embedded(store));
        if std::env::args_os().nth(2).is_some_and(|it| it == "hold") {
            return hold(&store).await;
        }
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..WRITERS {
            writers.spawn(write(Arc::clone(&store), writer));
        }
        match writers.join_next().await {
            Some(ended) => ended?,
            None => bail!("there is no writer"),
        }
    })
}

async fn write(store: Arc<Store>, writer: u32) -> Result<()> {
    let key = |name: &str| format!("writer/{writer}/{name}");
    let lease = store.grant(Duration::from_secs(3_600)).await?;
    let seen = store.read(&[Range::key(&key("first"))]).await?;
    let mut number = match seen.entries.first() {
        Some(entry) => std::str::from_utf8(&entry.value)?.parse()?,
        None => 0,
    };
    loop {
        number += 1;
        let mut changes = Transaction {
            puts: vec![
                put(key("first"), number, None),
                put(key("second"), number, Some(lease)),
                put(key(&format!("window/{number:010}")), number, Some(lease)),
            ],
            ..Transaction::default()
        };
        if number > WINDOW {
            let oldest = number - WINDOW;
            changes.deletes.push(key(&format!("window/{oldest:010}")));
        }
        let Committed::Done(revision) = store.commit(&changes).await? else {
            bail!("a conflict without a condition");
        };
        // One system call, so that a line is written whole or not at all.
        let line = format!("{writer} {number} {}\n", revision.0);
        std::io::stdout().write_all(line.as_bytes())?;
    }
}

async fn hold(store: &Store) -> Result<()> {
    let lease = store.grant(TTL).await?;
    let held = Transaction {
        puts: vec![put("held".into(), 0, Some(lease))],
        ..Transaction::default()
    };
    store.commit(&held).await?;
    loop {
        store.renew(lease).await?;
        std::io::stdout().write_all(b"renewed\n")?;
        tokio::time::sleep(TTL / 4).await;
        // Once more, so that after a halt the renewal does not come first: a registrar's does not.
        tokio::time::sleep(TTL / 4).await;
    }
}

fn put(key: String, number: u64, lease: Option<LeaseId>) -> Put {
    let value = number.to_string().into();
    Put { key, value, lease }
}
