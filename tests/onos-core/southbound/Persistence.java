package southbound;

import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import org.onosproject.persistence.PersistenceService;
import org.onosproject.persistence.PersistentMapBuilder;
import org.onosproject.persistence.PersistentSetBuilder;
import org.onosproject.store.service.Serializer;

/** What ONOS would keep on a disk, kept in memory. */
final class Persistence implements PersistenceService {
    private final Map<String, Map<?, ?>> maps = new ConcurrentHashMap<>();
    private final Map<String, Set<?>> sets = new ConcurrentHashMap<>();

    @Override
    public <K, V> PersistentMapBuilder<K, V> persistentMapBuilder() {
        return new PersistentMapBuilder<>() {
            private String name = "";

            @Override
            public PersistentMapBuilder<K, V> withName(String wanted) {
                name = wanted;
                return this;
            }

            @Override
            public PersistentMapBuilder<K, V> withSerializer(Serializer serializer) {
                return this;
            }

            @Override
            @SuppressWarnings("unchecked")
            public Map<K, V> build() {
                return (Map<K, V>) maps.computeIfAbsent(name, new_ -> new ConcurrentHashMap<>());
            }
        };
    }

    @Override
    public <E> PersistentSetBuilder<E> persistentSetBuilder() {
        return new PersistentSetBuilder<>() {
            private String name = "";

            @Override
            public PersistentSetBuilder<E> withName(String wanted) {
                name = wanted;
                return this;
            }

            @Override
            public PersistentSetBuilder<E> withSerializer(Serializer serializer) {
                return this;
            }

            @Override
            @SuppressWarnings("unchecked")
            public Set<E> build() {
                return (Set<E>) sets.computeIfAbsent(name, new_ -> ConcurrentHashMap.newKeySet());
            }
        };
    }
}
