//! Data of every type that Redis has.

use std::sync::LazyLock;

use super::Redis;

/// Rich data in databases 0 and 5: every type in its small and its large encoding, expiries, groups, functions.
pub fn fill(redis: &Redis) {
    let mut client = redis.client();
    for database in ["0", "5"] {
        client.run(&["SELECT", database]);
        client.run_all(&rich(database));
        client.run_bytes(&[b"SET", b"binary \xff\x00\r\n key", b"\x00\x01\xfe\r\nvalue"]);
        client.run(&["XREADGROUP", "GROUP", "readers", "alice", "COUNT", "2", "STREAMS", "stream", ">"]);
        client.run(&["XREADGROUP", "GROUP", "readers", "bob", "COUNT", "3", "STREAMS", "stream", ">"]);
        client.run(&["XACK", "stream", "readers", "1-1"]);
    }
    let library = "#!lua name=tests\nredis.register_function('echo', function(keys, args) return args[1] end)";
    client.run(&["FUNCTION", "LOAD", library]);
}

/// More than is held in memory on its way.
static NOISE: LazyLock<String> = LazyLock::new(|| {
    let mut random = fastrand::Rng::with_seed(7);
    (0..5 << 20).map(|_| random.alphanumeric()).collect()
});

fn rich(database: &str) -> Vec<Vec<String>> {
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let many = |start: &str, each: &dyn Fn(usize) -> String, count: usize| {
        let mut command = words(start);
        (0..count).for_each(|at| command.extend(words(&each(at))));
        command
    };
    let mut commands: Vec<Vec<String>> = [
        "SET plain value",
        "SET int8 -7",
        "SET int16 3000",
        "SET int32 -100000",
        "SET int64 123456789012",
        "SET 42 number-as-key",
        "SET {tag}one 1",
        "SET {tag}two 2",
        "SET expires:late x PXAT 4102444800123",
        "SET expires:later y EXAT 4102444900",
        "RPUSH list:small a b c 1 2 3",
        "SADD set:int 1 2 3 70000",
        "SADD set:str a b c",
        "ZADD zset:small 1 a 2.5 b -inf c +inf d",
        "HSET hash:small f v g 12",
        "XADD stream 1-1 temperature 20",
        "XADD stream 1-2 temperature 21",
        "XADD stream 5-0 other fields here now",
        "XADD stream 6-0 a b",
        "XADD stream 7-0 a b",
        "XADD stream 8-0 a b",
        "XDEL stream 1-2",
        "XGROUP CREATE stream readers 0",
        "XGROUP CREATE stream idle $",
        "XADD stream:empty 1-1 a b",
        "XDEL stream:empty 1-1",
        "PFADD hll a b c",
        "GEOADD geo 13.361389 38.115556 Palermo",
        "SETBIT bits 1000 1",
    ]
    .iter()
    .map(|line| words(line))
    .collect();
    commands.push(vec!["SET".into(), "empty".into(), String::new()]);
    commands.push(vec!["SET".into(), "compressible".into(), "ab".repeat(3000)]);
    commands.push(vec!["SET".into(), "longkey".repeat(60), "x".into()]);
    commands.push(vec!["SET".into(), "huge".into(), NOISE.clone()]);
    commands.push(many("RPUSH list:big", &|at| format!("element-{database}-{at}"), 3000));
    commands.push(many("SADD set:big", &|at| format!("member-{at}"), 2000));
    commands.push(many("ZADD zset:big", &|at| format!("{at}.25 member-{at}"), 2000));
    commands.push(many("HSET hash:big", &|at| format!("field-{at} value-{at}"), 2000));
    for at in 0..3000 {
        commands.push(words(&format!("SET many:{at} value-{database}-{at}")));
    }
    commands.push(words("PEXPIREAT hash:big 4102444800000"));
    commands.push(words("PEXPIREAT stream 4102444800000"));
    commands
}
