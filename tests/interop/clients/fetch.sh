#!/bin/sh
# Fetch and build the clients that no Debian package has, below DIRECTORY: what is missing is left out, with a word.
# Usage: sh tests/interop/clients/fetch.sh DIRECTORY
here=$(dirname "$(readlink -f "$0")")
mkdir -p "$1" && cd "$1" || exit 1

fetch() {  # LANGUAGE PROGRAM COMMAND...
    echo "$1"
    command -v "$2" >/dev/null || { echo "  $2 is not installed"; return; }
    shift 2
    "$@" || echo "  failed: $*"
}

python() {
    "$here/../../../.venv/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade --target python \
        django==5.2.19 flask-mail==0.10.0 yagmail==0.16.0 redmail==0.6.0 envelope==2.5.0 emails==1.1.3 fastapi-mail==1.6.8
}

go_() {
    cp -r "$here/go" . && cd go && GOFLAGS=-mod=mod go build -o ../bin/ ./...
}

rust() {
    cp -r "$here/rust" . && cargo install --quiet --debug --path rust --root . && rm -r rust/target
}

java() {  # NAME GROUP:ARTIFACT:VERSION...
    name=$1
    shift
    {
        echo "<project><modelVersion>4.0.0</modelVersion><groupId>c</groupId><artifactId>c</artifactId><version>0</version>"
        echo "<dependencies>"
        for each; do
            echo "$each" | sed 's|\(.*\):\(.*\):\(.*\)|<dependency><groupId>\1</groupId><artifactId>\2</artifactId><version>\3</version></dependency>|'
        done
        echo "</dependencies></project>"
    } >pom.xml
    mvn --quiet dependency:copy-dependencies -DoutputDirectory="$PWD/java/$name"
    rm pom.xml
}

fetch Python python3 python
fetch Node npm npm install --silent --prefix node nodemailer@10.6.1 emailjs@5.0.3
(fetch Go go go_)
angus=org.eclipse.angus:angus-mail:2.0.3
quiet=org.slf4j:slf4j-nop:2.0.16
fetch Java mvn java Angus $angus
fetch Java mvn java SimpleJavaMail org.simplejavamail:simple-java-mail:8.12.6 $quiet
fetch Java mvn java CommonsEmail org.apache.commons:commons-email2-jakarta:2.0.0-M1 $angus
fetch Java mvn java SpringMail org.springframework:spring-context-support:6.2.1 $angus
fetch Java mvn java VertxMail io.vertx:vertx-mail-client:5.0.7 $quiet
fetch Rust cargo rust
