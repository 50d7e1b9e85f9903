/* Observations of MSG_WAITALL. */

static void *receive_all(void *fd) {
    char bytes[50];
    return (void *)recv(*(int *)fd, bytes, sizeof bytes, MSG_WAITALL);
}

static void wait_all(void) {
    int client, server;
    char bytes[100];
    topic = "reset with all wanted";
    for (int way = 0; way < 5; way++) {
        server = reset_after("only");
        POLL(server, POLLIN | POLLERR | POLLHUP | POLLRDHUP);
        struct iovec two[2] = {{bytes, 2}, {bytes + 10, 90}};
        struct msghdr message = {.msg_iov = two, .msg_iovlen = 2};
        struct mmsghdr many = {.msg_hdr = message};
        if (way == 0) SEE(recv(server, bytes, 100, MSG_WAITALL));
        if (way == 1) SEE(recvfrom(server, bytes, 100, MSG_WAITALL | MSG_DONTWAIT, NULL, NULL));
        if (way == 2) SEE(recvmsg(server, &message, MSG_WAITALL));
        if (way == 3) SEE(recvmmsg(server, &many, 1, MSG_WAITALL, NULL));
        if (way == 4) SEE(recv(server, bytes, 100, MSG_WAITALL | MSG_TRUNC));
        SEE(recv(server, bytes, 100, 0));
        SEE(recv(server, bytes, 100, 0));
        close(server);
    }
    topic = "all wanted";
    pair(&client, &server);
    pthread_t later;
    for (int way = 0; way < 3; way++) {
        MUST(send(client, "ab", 2, 0));
        await(server, POLLIN);
        memset(bytes, 0, 100);
        struct iovec two[2] = {{bytes, 1}, {bytes + 1, 3}};
        struct msghdr message = {.msg_iov = two, .msg_iovlen = 2};
        MUST(pthread_create(&later, NULL, send_later, &client));
        if (way == 0) SEE(recv(server, bytes, 4, MSG_WAITALL));
        if (way == 1) SEE(recvmsg(server, &message, MSG_WAITALL));
        if (way == 2) SEE(recv(server, bytes, 4, MSG_WAITALL | MSG_TRUNC));
        say("%.4s", bytes);
        pthread_join(later, NULL);
    }
    pthread_t threads[2];
    for (int at = 0; at < 2; at++) MUST(pthread_create(threads + at, NULL, receive_all, &server));
    for (int at = 0; at < 20; at++) {
        MUST(send(client, "12345", 5, 0));
        usleep(2000);
    }
    for (int at = 0; at < 2; at++) {
        void *received;
        pthread_join(threads[at], &received);
        say("of two threads one has received %ld", (long)received);
    }
    struct timeval time = {.tv_usec = 50000};
    MUST(setsockopt(server, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time));
    MUST(send(client, "ab", 2, 0));
    await(server, POLLIN);
    SEE(recv(server, bytes, 4, MSG_WAITALL));
    SEE(recv(server, bytes, 4, MSG_WAITALL));
    part(client, server);
}
