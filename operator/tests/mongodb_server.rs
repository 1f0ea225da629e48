//! The MongoDB server of the tests itself: it starts, asks for a password, ends with all of its processes, and keeps its data.

#[path = "support/mongodb.rs"]
mod mongodb;

use std::net::TcpStream;

#[test]
fn a_server_comes_and_goes_and_comes_again() {
    let server = mongodb::Server::start();
    server.sql("CREATE TABLE kept (a int); INSERT INTO kept VALUES (7)");
    for _ in 0..3 {
        server.kill();
        assert!(TcpStream::connect(("127.0.0.1", server.port)).is_err(), "it still listens");
        server.start_again();
        assert_eq!(server.sql("SELECT a FROM kept"), "7");
    }
    assert!(server.uri().starts_with("mongodb://root:p%3Aa%40"), "{}", server.uri());
}
