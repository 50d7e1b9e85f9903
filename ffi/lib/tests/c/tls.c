// TLS by OpenSSL, which is given the descriptors and knows nothing of the overlay.
#include "common.h"
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#define CHECK_SSL(condition)                                                                                          \
    do {                                                                                                              \
        if (!(condition)) {                                                                                           \
            ERR_print_errors_fp(stderr);                                                                              \
            CHECK(!#condition);                                                                                       \
        }                                                                                                             \
    } while (0)

enum { LENGTH = 1 << 20 };

static EVP_PKEY *key;
static X509 *certificate;

static void make_certificate(void) {
    key = EVP_EC_gen("P-256");
    certificate = X509_new();
    CHECK_SSL(key != NULL && certificate != NULL);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
    X509_gmtime_adj(X509_getm_notBefore(certificate), -3600);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
    X509_NAME *name = X509_get_subject_name(certificate);
    CHECK_SSL(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"overlay", -1, -1, 0));
    CHECK_SSL(X509_set_issuer_name(certificate, name) && X509_set_pubkey(certificate, key));
    CHECK_SSL(X509_sign(certificate, key, EVP_sha256()));
}

static void *serve(void *listener) {
    static char buf[LENGTH];
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    CHECK_SSL(SSL_CTX_use_certificate(context, certificate) && SSL_CTX_use_PrivateKey(context, key));
    int fd = peersock_accept(*(int *)listener, NULL, NULL);
    CHECK(fd >= 0);
    SSL *tls = SSL_new(context);
    CHECK_SSL(SSL_set_fd(tls, fd) && SSL_accept(tls) == 1);
    for (int got = 0, n; got < LENGTH; got += n) CHECK_SSL((n = SSL_read(tls, buf + got, LENGTH - got)) > 0);
    CHECK_SSL(SSL_write(tls, buf, LENGTH) == LENGTH);
    CHECK_SSL(SSL_shutdown(tls) >= 0);
    SSL_free(tls);
    SSL_CTX_free(context);
    CHECK(close(fd) == 0);
    return NULL;
}

int main(void) {
    static char data[LENGTH], buf[LENGTH];
    pthread_t server;
    make_certificate();
    peersock_node other = start_pair();
    int listener = listen_on(other, 443);
    CHECK(pthread_create(&server, NULL, serve, &listener) == 0);

    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    CHECK_SSL(X509_STORE_add_cert(SSL_CTX_get_cert_store(context), certificate));
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    int fd = connect_to(address_of(other, 443));
    SSL *tls = SSL_new(context);
    CHECK_SSL(SSL_set1_host(tls, "overlay") && SSL_set_fd(tls, fd) && SSL_connect(tls) == 1);
    CHECK_SSL(SSL_get_verify_result(tls) == X509_V_OK);
    for (int i = 0; i < LENGTH; i++) data[i] = (char)(i * 7 + i / 251);
    CHECK_SSL(SSL_write(tls, data, LENGTH) == LENGTH);
    for (int got = 0, n; got < LENGTH; got += n) CHECK_SSL((n = SSL_read(tls, buf + got, LENGTH - got)) > 0);
    CHECK(memcmp(data, buf, LENGTH) == 0);
    CHECK(SSL_read(tls, buf, 1) == 0 && SSL_get_error(tls, 0) == SSL_ERROR_ZERO_RETURN);
    CHECK(pthread_join(server, NULL) == 0);
    SSL_free(tls);
    SSL_CTX_free(context);
    X509_free(certificate);
    EVP_PKEY_free(key);
    CHECK(close(fd) == 0 && close(listener) == 0);
    puts("ok");
    return 0;
}
