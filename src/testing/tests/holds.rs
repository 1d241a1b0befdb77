use super::*;

#[tokio::test]
async fn a_held_call_is_counted_but_not_executed() {
    let mock = MockCrossmint::start().await;
    let session = mock.sign_in("alice");
    let hold = mock.hold(Endpoint::Refresh);
    let mut raw = arrived_refresh(&mock, session.refresh_token()).await;
    assert_eq!(mock.requests(Endpoint::Refresh).len(), 1);
    assert!(mock.is_live(session.refresh_token()));
    assert_eq!(fetch(&mock, KEYS).await.status(), 200);

    hold.release();
    assert!(raw.receive().await.unwrap().starts_with("HTTP/1.1 200"));
    assert!(!mock.is_live(session.refresh_token()));
    successor(&mock, mock.sign_in("bob").refresh_token()).await;
}

#[tokio::test]
async fn a_held_response_belongs_to_an_executed_call() {
    let mock = MockCrossmint::start().await;
    let session = mock.sign_in("alice");
    let hold = mock.hold_answers(Endpoint::Refresh);
    let mut raw = arrived_refresh(&mock, session.refresh_token()).await;
    assert!(!mock.is_live(session.refresh_token()));
    drop(hold);
    assert!(raw.receive().await.unwrap().starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_held_call_is_executed_after_its_client_has_disconnected() {
    let mock = MockCrossmint::start().await;
    let session = mock.sign_in("alice");
    let hold = mock.hold(Endpoint::Refresh);
    drop(arrived_refresh(&mock, session.refresh_token()).await);
    let mut later = arrived_refresh(&mock, session.refresh_token()).await;
    hold.release();
    assert!(later.receive().await.unwrap().contains("Refresh token has been used"));
    assert_eq!(mock.reuse_detections(), 1);
}

#[tokio::test]
async fn faults_and_holds_do_not_affect_calls_that_have_arrived() {
    let mock = MockCrossmint::start().await;
    let session = mock.sign_in("alice");
    let first = mock.hold(Endpoint::Refresh);
    let mut raw = arrived_refresh(&mock, session.refresh_token()).await;
    let _second = mock.hold(Endpoint::Refresh);
    mock.inject(Endpoint::Refresh, Fault::Status(500));
    first.release();
    assert!(raw.receive().await.unwrap().starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_were_waited_for_are_recorded() {
    let mock = MockCrossmint::start().await;
    let url = format!("{}{KEYS}", mock.base_url());
    let client = client();
    for n in 1..=200 {
        let call = tokio::spawn(client.get(&url).send());
        mock.called(Endpoint::Keys, n).await;
        assert_eq!(mock.requests(Endpoint::Keys).len(), n);
        assert_eq!(mock.calls(Endpoint::Keys), n);
        call.await.unwrap().unwrap();
    }
}
