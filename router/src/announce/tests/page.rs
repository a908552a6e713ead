//! The page on loopback.

use daemon::page;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;

async fn get(page: SocketAddr, path: &str) -> String {
    let mut tcp = TcpStream::connect(page).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {page}\r\nConnection: close\r\n\r\n");
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_page_tells_what_is_announced_and_what_is_refused() {
    let authority = Authority::new();
    let registry = Scripted::start(&authority, |seen| {
        match seen.method == Method::PUT && hosts(seen).contains('b') {
            true => Reply::problem(403, "outside-zones", Some("b.example.org")),
            false => willing(seen),
        }
    })
    .await;
    let ((_one, one), (_two, two)) = (endpoint().await, endpoint().await);
    let routes = vec![wanted("a", one), wanted("b", two)];
    let loaded = loaded(&authority, &[&registry], routes);
    let listener = page::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let registrar = Registrar::new(&PathBuf::from("/nowhere/registrar.yaml"), loaded);
    registrar.show(listener);
    let (stop, stopped) = oneshot::channel::<()>();
    let hangup = signal(SignalKind::user_defined2()).unwrap();
    let stop_it = async { drop(stopped.await) };
    let task = tokio::spawn(registrar.run(stop_it, hangup, WatchOptions::default()));
    registry.wait_for(last_is("a")).await;
    let begun = Instant::now();
    let text = loop {
        let text = get(address, "/metrics").await;
        if text.contains("outcome=\"accepted\"") {
            break text;
        }
        assert!(begun.elapsed() < LONG, "{text}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    for line in [
        format!("route_announced{{host=\"a.example.org\",endpoint=\"{one}\"}} 1"),
        format!("route_announced{{host=\"b.example.org\",endpoint=\"{two}\"}} 0"),
        format!("route_healthy{{host=\"b.example.org\",endpoint=\"{two}\"}} 1"),
        "routes_refused{reason=\"outside-zones\"} 1".to_owned(),
    ] {
        assert!(
            text.contains(&format!("gatehouse_registrar_{line}\n")),
            "{line}: {text}"
        );
    }
    assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200 "));
    let ready = get(address, "/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 503 "), "{ready}");
    assert!(ready.contains("1 healthy and not announced"), "{ready}");
    stop.send(()).unwrap();
    timeout(LONG, task).await.unwrap().unwrap();
}
