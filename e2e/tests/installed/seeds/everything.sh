# Files of every kind that their owner alone can make.
# shellcheck shell=bash
mkdir -p "a folder/deep/er" empty many
echo 'small' >"a folder/small"
: >"a folder/nothing"
printf 'no newline' >$'odd\nname'
printf 'bytes' >$'not \xff\xfe UTF-8'
printf 'long' >"a folder/$(printf 'n%.0s' {1..200})"
path=a\ folder/deep/er; for i in {1..8}; do path+=/$(printf "$i%.0s" {1..60}); done; mkdir -p "$path"; echo deep >"$path/file"
echo 'many names' >"hard 1"; ln "hard 1" "hard 2"; ln "hard 1" "a folder/hard 3"
ln -s small "a folder/link"; ln -s ../empty "a folder/to a folder"; ln -s /etc/passwd absolute; ln -s nowhere dangling
truncate -s 64M sparse; printf 'in the middle' | dd of=sparse bs=1 seek=20000000 conv=notrunc status=none; printf 'end' >>sparse
head -c 20000000 /dev/urandom >random
for i in {1..2000}; do printf '%s' "$i $RANDOM" >"many/$i"; done
printf 'secret' >private; chmod 600 private; chmod 444 "many/1"; chmod 751 empty; chmod 1777 many
setfattr -n user.origin -v 'where it came from' private; setfattr -n user.folder -v 1 empty
touch -d '1969-12-31 23:59:58.123456789 UTC' "hard 1"; touch -d '2105-01-01 00:00:00.000000001 UTC' random
touch -h -d '2001-02-03 04:05:06.700000000 UTC' dangling
perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Local => "socket", Listen => 1) or die'
touch -d '2001-02-03 04:05:06.123456789 UTC' empty "a folder/deep" "a folder"
