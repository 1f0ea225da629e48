# Every type of BSON, in an order of its own, and documents that a driver would not have written.
db.types.insert_many([
    {"_id": bson.ObjectId("65a1b2c3d4e5f60718293a4b"), "z": 1, "a": 2, "m": {"y": 1, "b": [1, 2.5, "three", None, {"deep": [[]]}]}},
    {"_id": "text", "double": -0.0, "nan": float("nan"), "inf": float("inf"), "int": 1, "long": bson.Int64(1), "big": bson.Int64(2**62),
     "decimal": bson.Decimal128("1.500"), "decimal nan": bson.Decimal128("NaN"), "true": True, "null": None},
    {"_id": bson.Int64(7), "date": datetime.datetime(1969, 12, 31, 23, 59, 59, 999000), "timestamp": bson.Timestamp(4294967295, 7),
     "regex": bson.Regex("^a/b", "imsx"), "code": bson.Code("function () { return 1 }"), "scoped": bson.Code("x", {"x": 1}),
     "min": bson.MinKey(), "max": bson.MaxKey(), "ref": bson.DBRef("orders", 1)},
    {"_id": {"compound": 1, "key": "x"}, "binary": bson.Binary(bytes(range(256)), 0), "uuid": bson.Binary(bytes(range(16)), 4),
     "user": bson.Binary(b"\xff\x00", 128), "": "an empty name", "ü – 漢字 🎉": "unicode \u0000 inside", "a.b": 1, "$dollar": 2},
])
numbers = range(20000)
db.orders.insert_many([{"_id": i, "customer": f"c{i % 997}", "total": i * 1.5, "note": "x" * (i % 300), "tags": [str(i % 7), i % 3],
                        "at": datetime.datetime(2026, 1, 1) + datetime.timedelta(minutes=i)} for i in numbers])
db.orders.create_index([("customer", 1), ("total", -1)], name="by customer")
db.orders.create_index("at", expireAfterSeconds=10**8)
db.orders.create_index("total", partialFilterExpression={"total": {"$gt": 100}}, name="partial")
db.orders.create_index("note", sparse=True)
db.orders.create_index([("customer", "hashed")])
db.people.insert_many([{"_id": i, "email": f"p{i}@example.com", "about": f"person number {i}", "home": {"type": "Point", "coordinates": [i % 180, i % 80]}}
                       for i in range(500)])
db.people.create_index("email", unique=True)
db.people.create_index([("about", "text")])
db.people.create_index([("home", "2dsphere")])
db["wild cards – ü"].insert_one({"_id": 1, "any": {"thing": 1}})
db["wild cards – ü"].create_index([("$**", 1)])
db.documents.insert_many([{"_id": i, "body": bytes([i]) * 1500000} for i in range(4)])
db.create_collection("empty")
db.empty.create_index("later")
db.create_collection("checked", validator={"$jsonSchema": {"bsonType": "object", "required": ["n"]}}, validationAction="error")
db.checked.insert_many([{"_id": i, "n": i} for i in range(10)])
db.create_collection("large orders", viewOn="orders", pipeline=[{"$match": {"total": {"$gt": 29000}}}, {"$project": {"note": 0}}])
