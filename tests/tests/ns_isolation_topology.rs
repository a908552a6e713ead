//! x
#[test]
fn topology() {
    let t = std::time::Instant::now();
    let top = harness::isolation::topology::Topology::new().unwrap();
    eprintln!("took {:?}", t.elapsed());
    use harness::isolation::place::Place;
    for (p, args) in [(Place::Stranger, vec!["ping","-c1","-W1","10.77.0.33"]),(Place::P1, vec!["ping","-c1","-W1","10.244.2.19"]),(Place::P1, vec!["ping","-c1","-W1","fd44:0:0:2::13"]),(Place::Fp, vec!["ping","-c1","-W1","fd77::21"])] {
        let out = harness::tool::Tool::new(args[0]).args(&args[1..]).namespace(Some(top.at(p))).run().unwrap();
        eprintln!("{}{}", out.stdout, out.stderr);
    }
}
