/* A module of Redis 8.6 for the tests: KEYMETA.SET key number keeps a number beside a key, and KEYMETA.GET key tells it.
 * It declares the few calls of the modules' interface that it makes, whose header Debian does not ship. */
#include <stddef.h>
#include <stdint.h>

typedef void Context, Key, String, Io, Type;

#define EACH_CALL(X) \
    X(SetModuleAttribs, void, (Context *, const char *, int, int)) \
    X(CreateCommand, int, (Context *, const char *, int (*)(Context *, String **, int), const char *, int, int, int)) \
    X(CreateKeyMetaClass, int, (Context *, const char *, int, void *)) \
    X(SetKeyMeta, int, (int, Key *, uint64_t)) \
    X(GetKeyMeta, int, (int, Key *, uint64_t *)) \
    X(OpenKey, Key *, (Context *, String *, int)) \
    X(CloseKey, void, (Key *)) \
    X(StringToLongLong, int, (const String *, long long *)) \
    X(ReplyWithLongLong, int, (Context *, long long)) \
    X(ReplyWithError, int, (Context *, const char *)) \
    X(ReplicateVerbatim, int, (Context *)) \
    X(SaveUnsigned, void, (Io *, uint64_t)) \
    X(LoadUnsigned, uint64_t, (Io *)) \
    X(SaveStringBuffer, void, (Io *, const char *, size_t)) \
    X(LoadStringBuffer, char *, (Io *, size_t *)) \
    X(Free, void, (void *)) \
    X(CreateDataType, Type *, (Context *, const char *, int, void *))

#define DECLARE(name, result, arguments) static result(*name) arguments;
EACH_CALL(DECLARE)

static int class;

static void save(Io *rdb, void *key, uint64_t *meta) {
    (void)key;
    SaveUnsigned(rdb, *meta);
    SaveStringBuffer(rdb, "of a key", 8);
}

static int load(Io *rdb, uint64_t *meta, int version) {
    (void)version;
    *meta = LoadUnsigned(rdb);
    Free(LoadStringBuffer(rdb, NULL));
    return 1;
}

static int set(Context *context, String **arguments, int count) {
    long long number;
    if (count != 3 || StringToLongLong(arguments[2], &number)) return ReplyWithError(context, "ERR KEYMETA.SET key number");
    Key *key = OpenKey(context, arguments[1], 3);
    int refused = SetKeyMeta(class, key, (uint64_t)number);
    CloseKey(key);
    if (refused) return ReplyWithError(context, "ERR no such key");
    ReplicateVerbatim(context);
    return ReplyWithLongLong(context, number);
}

static int get(Context *context, String **arguments, int count) {
    uint64_t number = 0;
    if (count != 2) return ReplyWithError(context, "ERR KEYMETA.GET key");
    Key *key = OpenKey(context, arguments[1], 1);
    int none = !key || GetKeyMeta(class, key, &number);
    if (key) CloseKey(key);
    return ReplyWithLongLong(context, none ? -1 : (long long)number);
}

int RedisModule_OnLoad(Context *context, String **arguments, int count) {
    (void)arguments, (void)count;
    int (*find)(const char *, void **) = *(int (**)(const char *, void **))context;
#define FIND(name, result, parameters) if (find("RedisModule_" #name, (void **)&name)) return 1;
    EACH_CALL(FIND)
    SetModuleAttribs(context, "keymeta", 1, 1);
    struct {
        uint64_t version, flags, reset_value;
        void *copy, *rename, *move, *unlink, *free;
        int (*rdb_load)(Io *, uint64_t *, int);
        void (*rdb_save)(Io *, void *, uint64_t *);
        void *aof_rewrite, *defrag, *mem_usage, *free_effort;
    } config = {.version = 1, .rdb_load = load, .rdb_save = save};
    class = CreateKeyMetaClass(context, "hold", 3, &config);
    if (class < 0) return 1;
    return CreateCommand(context, "keymeta.set", set, "write", 1, 1, 1) || CreateCommand(context, "keymeta.get", get, "readonly", 1, 1, 1);
}
